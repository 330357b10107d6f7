//! What can be wrong with a checkpoint.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error("{}: cannot read or write it", path.display())]
    Io { path: PathBuf, source: io::Error },

    #[error("{}: {found}, expected {expected}", path.display())]
    Index { path: PathBuf, found: String, expected: String },

    #[error("{}: tensor `{tensor}`: {found}, expected {expected}", path.display())]
    Tensor { path: PathBuf, tensor: String, found: String, expected: String },

    /// It ends before what the checkpoint says is in it. `of` is that, with a colon, or nothing.
    #[error("{}: {of}a file of {found} bytes, expected at least {expected}", path.display())]
    Cut { path: PathBuf, of: String, found: u64, expected: u64 },

    #[error("{}: no checkpoint of step {step}; there are {there}", path.display())]
    NoStep { path: PathBuf, step: u64, there: String },

    /// The source says what is wrong with it.
    #[error("{} is damaged; {way_out}", path.display())]
    Damaged { path: PathBuf, way_out: String, source: Box<CheckpointError> },

    #[error("{}: cannot copy the tokenizer", path.display())]
    Tokenizer { path: PathBuf, source: ff2_model::ModelError },

    #[error("rank {rank} could not write its part: {reason}")]
    Rank { rank: usize, reason: String },

    #[error("cannot agree with the other ranks that a checkpoint is whole")]
    Ranks(#[from] ff2_collectives::CollectiveError),

    #[error("the thread that writes checkpoints ended without one")]
    Thread,
}

impl CheckpointError {
    /// A file that is missing or cut, unlike one with other bytes than were written.
    pub(super) fn is_torn(&self) -> bool {
        match self {
            Self::Cut { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}
