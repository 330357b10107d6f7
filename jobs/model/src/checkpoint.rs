//! A model's folder in Hugging Face layout: `config.json`, `model.safetensors` or shards with an index, and the
//! tokenizer's files, which pass through unread.

mod memory;
mod numbers;
mod parts;
mod read;
mod reader;
mod shard;
mod write;

pub use read::Checkpoint;
pub use write::{copy_tokenizer, write};

pub use crate::Precision;

/// One file of weights.
const SINGLE: &str = "model.safetensors";
/// Which shard has which tensor, where there are several.
const INDEX: &str = "model.safetensors.index.json";
