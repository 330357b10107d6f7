//! Log-probabilities of tokens, natural ones, of the model's own distribution.

use serde_json::{Map, Value, json};

use crate::text::tokenizer::Tokenizer;

/// A generated token and what was likely beside it, likeliest first.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    pub token: u32,
    /// The first token of a prompt has none.
    pub logprob: Option<f32>,
    pub top: Vec<(u32, f32)>,
}

/// A float that is no number has no JSON; OpenAI's floor stands for what cannot be.
pub fn told(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { -9999.0 }
}

/// Those of a prompt as vLLM words them: for each token an object of those likeliest and of itself by id; null for the
/// first. A rank is told of tokens among the `count` likeliest.
pub fn of_prompt(tokenizer: &Tokenizer, prompt: &[TokenLogprob], count: usize) -> Value {
    let entry = |token: u32, logprob: f32, rank: Option<usize>| {
        let text = tokenizer.decode(&[token], false);
        json!({"logprob": told(logprob), "rank": rank, "decoded_token": text})
    };
    let position = |it: &TokenLogprob| {
        let Some(own) = it.logprob else { return Value::Null };
        let mut entries = Map::new();
        entries.insert(it.token.to_string(), entry(it.token, own, None));
        for (rank, (token, logprob)) in (1..).zip(it.top.iter().take(count)) {
            entries.insert(token.to_string(), entry(*token, *logprob, Some(rank)));
        }
        Value::Object(entries)
    };
    prompt.iter().map(position).collect()
}
