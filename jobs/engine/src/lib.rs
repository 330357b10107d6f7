//! Inference of DeepSeek-family models: tokens in, tokens out. Owns the KV cache, what runs in which step, and how
//! tokens are chosen; knows no text, no HTTP and no user. The server calls it, and anything else that wants answers.
//!
//! The story of a request: [`Engine::submit`] checks it and puts it into the queue, or refuses it at once. The
//! engine's own thread takes it from there, computes its tokens beside those of others, and sends each as an
//! [`Event`]; the caller reads them from its [`Generation`], whenever it likes, and ends it by dropping it.

mod blocks;
mod constraint;
mod engine;
mod error;
mod figures;
mod generation;
mod inbox;
mod request;
mod sampler;
mod schedule;
mod worker;

pub use constraint::{Constraint, TokenSet};
pub use engine::{Engine, EngineOptions};
pub use error::{EngineError, Refused};
pub use figures::{Figures, Histogram};
pub use generation::{Event, Generation, Reason, Usage};
pub use request::{LOGPROBS_MAX, Request, Sampling};
