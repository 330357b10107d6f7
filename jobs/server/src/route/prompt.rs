//! What a request begins with, in blocks, and which of them a replica has seen. A block's name stands for all up to its
//! end, as in the engine; but the router reads bytes and no tokens, so that it needs no model.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hasher},
};

use serde_json::Value;

/// About 64 tokens of text, the block of the engine's cache; 64 tokens of a prompt that is given as such.
pub const BLOCK_BYTES: usize = 256;

/// A prompt as the router knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Of full blocks, each with all before it.
    pub blocks: Vec<u64>,
    pub bytes: usize,
}

impl Prompt {
    /// Of a request's body. What cannot be read has none: whichever replica gets it says what is wrong.
    pub fn of(body: &Value) -> Self {
        Self::of_bytes(&begins(body))
    }

    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut before = 0;
        let blocks = bytes.chunks_exact(BLOCK_BYTES).map(|block| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(before);
            hasher.write(block);
            before = hasher.finish();
            before
        });
        Self { blocks: blocks.collect(), bytes: bytes.len() }
    }
}

/// What templates put first comes first: two requests share a beginning here where their prompts do.
fn begins(body: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(tools) = body.get("tools").filter(|tools| !tools.is_null()) {
        bytes.extend(tools.to_string().into_bytes());
    }
    for message in body["messages"].as_array().into_iter().flatten() {
        bytes.extend(message.to_string().into_bytes());
        bytes.push(b'\n');
    }
    prompt(&body["prompt"], &mut bytes);
    bytes
}

fn prompt(of: &Value, bytes: &mut Vec<u8>) {
    match of {
        Value::String(text) => bytes.extend(text.as_bytes()),
        Value::Number(token) => {
            // Wider ones are refused later.
            let token = token.as_u64().unwrap_or(0) as u32;
            bytes.extend(token.to_le_bytes());
        }
        // Of several prompts the first decides: they go together.
        Value::Array(all) if all.iter().all(Value::is_number) => {
            all.iter().for_each(|token| prompt(token, bytes));
        }
        Value::Array(all) => all.iter().take(1).for_each(|first| prompt(first, bytes)),
        Value::Null | Value::Bool(_) | Value::Object(_) => {}
    }
}

/// The blocks that a replica has seen, as far as they fit into what it can keep; the least recently used go first, and
/// of one prompt the last, as in its engine.
#[derive(Debug, Default)]
pub struct Seen {
    used: HashMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
    now: u64,
}

impl Seen {
    /// Blocks of a prompt's beginning that are known.
    pub fn known(&self, prompt: &Prompt) -> usize {
        prompt.blocks.iter().take_while(|block| self.used.contains_key(block)).count()
    }

    pub fn note(&mut self, prompt: &Prompt, most: usize) {
        for block in prompt.blocks.iter().take(most).rev() {
            self.now += 1;
            if let Some(before) = self.used.insert(*block, self.now) {
                self.by_use.remove(&before);
            }
            self.by_use.insert(self.now, *block);
        }
        while self.used.len() > most {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.used.remove(&oldest);
        }
        assert_eq!(self.used.len(), self.by_use.len(), "each block has one last use");
    }

    pub fn len(&self) -> usize {
        self.used.len()
    }

    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    /// It began anew.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(count: usize) -> String {
        (0..count).map(|n| format!("word {n} ")).collect()
    }

    #[test]
    fn a_longer_conversation_begins_with_the_shorter() {
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let short = json!({"messages": [message("system", &words(200))], "tools": [{"a": 1}]});
        let mut long = short.clone();
        long["messages"].as_array_mut().unwrap().push(message("user", &words(100)));
        let (short, long) = (Prompt::of(&short), Prompt::of(&long));
        assert!(short.blocks.len() > 4);
        assert!(long.blocks.len() > short.blocks.len() && long.blocks.starts_with(&short.blocks));
        let mut other = json!({"messages": [message("system", &words(200))], "tools": [{"a": 2}]});
        assert_ne!(Prompt::of(&other).blocks[0], short.blocks[0], "other tools come first");
        other["tools"] = Value::Null;
        assert_ne!(Prompt::of(&other).blocks[0], short.blocks[0]);
    }

    #[test]
    fn texts_tokens_and_lists_have_beginnings_and_garbage_has_none() {
        let text = words(100);
        let of = |prompt: Value| Prompt::of(&json!({"prompt": prompt}));
        assert_eq!(of(json!(text)), of(json!([text, "another"])));
        let tokens: Vec<u32> = (0..64).collect();
        assert_eq!(of(json!(tokens)).blocks.len(), 1);
        assert_eq!(of(json!([tokens, [1]])), of(json!(tokens)));
        for garbage in [json!(true), json!({"a": 1}), json!([[], {}]), json!(null)] {
            assert_eq!(of(garbage), Prompt::default());
        }
        assert_eq!(Prompt::of(&json!([])), Prompt::default());
    }

    #[test]
    fn what_was_used_last_stays_and_the_end_of_a_prompt_goes_first() {
        let prompt = |from: u8| {
            Prompt::of_bytes(&(0..4).flat_map(|n| [from + n; BLOCK_BYTES]).collect::<Vec<_>>())
        };
        let (a, b) = (prompt(0), prompt(100));
        let mut seen = Seen::default();
        assert_eq!((seen.known(&a), seen.len()), (0, 0));
        seen.note(&a, 6);
        seen.note(&b, 6);
        assert_eq!((seen.known(&b), seen.known(&a), seen.len()), (4, 2, 6));
        seen.note(&a, 6);
        assert_eq!((seen.known(&a), seen.known(&b)), (4, 2));
        seen.note(&b, 3);
        assert_eq!((seen.known(&b), seen.len()), (3, 3), "no more than fits");
        seen.clear();
        assert!(seen.is_empty());
    }
}
