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

    #[error("{}: no checkpoint of step {step}; there are {there}", path.display())]
    NoStep { path: PathBuf, step: u64, there: String },

    /// The source says what is wrong with it.
    #[error("{} is damaged; {way_out}", path.display())]
    Damaged { path: PathBuf, way_out: String, source: Box<CheckpointError> },

    #[error("{}: cannot copy the tokenizer", path.display())]
    Tokenizer { path: PathBuf, source: ff2_model::ModelError },

    #[error("the thread that writes checkpoints ended without one")]
    Thread,
}
