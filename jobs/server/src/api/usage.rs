//! What a request cost, in tokens.

use serde_json::{Value, json};

/// Sums of all choices; the prompt counts once for each prompt, however many choices follow it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt: usize,
    /// Tokens of the prompt that were in the prefix cache.
    pub cached: usize,
    pub completion: usize,
    /// Tokens of the completion between think tags.
    pub reasoning: usize,
}

impl Usage {
    pub fn add(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.completion += other.completion;
        self.reasoning += other.reasoning;
    }

    /// OpenAI's fields, and DeepSeek's of the prefix cache.
    pub fn body(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
            "prompt_cache_hit_tokens": self.cached,
            "prompt_cache_miss_tokens": self.prompt.saturating_sub(self.cached),
        })
    }
}
