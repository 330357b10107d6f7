//! Why an engine does not start, and why it refuses a request.

use std::{io, path::PathBuf, time::Duration};

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{0}")]
    Options(String),

    #[error("cannot start the engine's threads")]
    Threads(#[source] io::Error),

    #[error("cannot use {} for the prefix cache", folder.display())]
    Disk { folder: PathBuf, source: io::Error },
}

/// What a caller is told instead of a generation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refused {
    /// All places in the queue are taken; one may be free after `retry_after`.
    #[error("the queue is full, try again in {} s", retry_after.as_secs())]
    QueueFull { retry_after: Duration },

    /// Prompt and answer together have more tokens than a sequence may have.
    #[error("the prompt and max_tokens come to {tokens} tokens, expected at most {limit}")]
    TooLong { tokens: usize, limit: usize },

    /// The engine drains: it finishes what it has and takes nothing new.
    #[error("the engine is stopping, ask another one")]
    Stopping,

    /// A value outside its range; says which, and what was expected.
    #[error("{0}")]
    Invalid(String),
}
