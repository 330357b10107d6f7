//! Checkpoints of a run: a folder of *steps*, each a folder of its own that appears whole or not at all.
//!
//! ```text
//! step-00000100/
//!   commit.json, .crc32c    the run's numbers, and each rank's index with its length and CRC32C
//!   index-0000.json ...     of each rank: for each run of a tensor's numbers its file, offset, length and CRC32C
//!   part-0000-0000.bin ...  of each rank: numbers behind each other, little-endian f32: weights and moments of AdamW
//!   tokenizer.json ...
//! ```
//!
//! A step is written under a hidden name. Each rank writes and syncs its share, in files of its own, all at the same
//! time; then rank 0 writes the commit record and gives the step its name. A step whose record is missing, or a file
//! that it names, is not a checkpoint: the one before is. What the trainer reads it does not trust: every byte has a
//! checksum, and every number of the model must be there once.

mod error;
mod folder;
mod index;
mod read;
mod saver;
mod snapshot;
mod write;

pub(crate) use error::CheckpointError;
pub(crate) use folder::{newest, step_folder};
pub(crate) use read::{Shared, read, resume};
pub(crate) use saver::{Saved, Saver};
pub(crate) use snapshot::Snapshot;

/// So many bytes in that time, for people.
pub(crate) fn speed(bytes: u64, took: std::time::Duration) -> String {
    let (mib, seconds) = (bytes as f64 / f64::from(1 << 20), took.as_secs_f64());
    format!("{mib:.1} MiB in {seconds:.2} s, {:.2} GiB/s", mib / 1024.0 / seconds.max(1e-9))
}
