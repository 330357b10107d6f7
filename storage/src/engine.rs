//! The chunk engine of one disk.
pub mod types;

pub use types::*;
