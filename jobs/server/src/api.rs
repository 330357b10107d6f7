//! The OpenAI-compatible interface: requests are read here once and become what the engine is asked; what it generates
//! becomes answers, whole or streamed. Which fields are known, and what happens to others, is in docs/SERVING.md.

pub mod chat;
pub mod completions;
pub mod error;
pub mod logprobs;
pub mod messages;
pub mod models;
pub mod parameters;
pub mod read;
pub mod reply;
pub mod sse;
pub mod structured;
pub(crate) mod tally;
pub mod tokens;
pub mod usage;
