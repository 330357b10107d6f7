//! What can be wrong with a model's files or with what it is asked.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("cannot read or write {}", path.display())]
    Io { path: PathBuf, source: io::Error },

    #[error("{}: {detail}", path.display())]
    Config { path: PathBuf, detail: String },

    #[error("{}: no whole safetensors file, fetch or write it again", path.display())]
    Safetensors { path: PathBuf, source: safetensors::SafeTensorError },

    #[error("{}: no tensor `{tensor}`, expected one of shape {expected:?}", path.display())]
    Missing { path: PathBuf, tensor: String, expected: Vec<usize> },

    #[error(
        "{}: tensor `{tensor}` has shape {found:?}, expected {expected:?} by config.json",
        path.display()
    )]
    Shape { path: PathBuf, tensor: String, expected: Vec<usize>, found: Vec<usize> },

    #[error("{}: tensor `{tensor}` is {found}, expected {expected}", path.display())]
    Dtype { path: PathBuf, tensor: String, found: String, expected: &'static str },

    #[error("{}: tensor `{tensor}` is not part of the model that config.json describes", path.display())]
    Unexpected { path: PathBuf, tensor: String },

    #[error("cannot start threads that read")]
    Threads(#[source] io::Error),

    #[error("the ranks that share the experts")]
    Ranks(#[source] Box<dyn std::error::Error + Send + Sync>),

    #[error("{0}")]
    Input(String),
}
