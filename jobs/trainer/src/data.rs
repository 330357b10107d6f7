//! Tokenised text on disk, and its way into batches. A *dataset* is a folder that `ff2-train tokenize` wrote:
//! `dataset.json` lists its shards, `tokenizer.json` made their tokens. Nothing here knows of models.

mod dataset;
mod error;
mod loader;
mod manifest;
mod order;
mod shard;
mod store;
mod volume;

pub(crate) use dataset::Dataset;
pub(crate) use error::DataError;
pub(crate) use loader::{Loader, Place};
pub(crate) use manifest::{Manifest, ShardEntry, TOKENIZER, hex, tokenizer_hash};
pub(crate) use order::Order;
pub(crate) use shard::{ShardWriter, TokenizerHash};
pub(crate) use store::Store;
