//! Checkpoints of a run: a folder of *steps*, each a folder of its own that appears whole or not at all.
//!
//! ```text
//! step-00000100/
//!   index-0000.json         of rank 0: the run's numbers, and for each tensor its file, offset, length and CRC32C
//!   index-0000.crc32c       the checksum of that file, in hex
//!   part-0000-0000.bin ...  tensors behind each other, little-endian f32: weights and both moments of AdamW
//!   tokenizer.json ...
//! ```
//!
//! A step is written under a hidden name, synced, and renamed. Each rank has files of its own, so that all can write at
//! once; today there is rank 0 alone. What the trainer reads it does not trust: every byte has a checksum.

mod error;
mod folder;
mod index;
mod read;
mod saver;
mod write;

pub(crate) use error::CheckpointError;
pub(crate) use folder::{newest, step_folder};
pub(crate) use read::{read, resume};
pub(crate) use saver::Saver;
pub(crate) use write::Snapshot;
