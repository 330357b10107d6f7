//! From a rank's share of a run to its files of a step.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crc_fast::crc32_iscsi;
use zerocopy::IntoBytes;

use super::{
    CheckpointError,
    folder::at,
    index::{Entry, Index, Named},
    snapshot::Snapshot,
};

// Numbers go to files as they are in memory.
const _: () = assert!(cfg!(target_endian = "little"), "checkpoints are little-endian");

/// How to write.
#[derive(Debug)]
pub(super) struct How<'a> {
    pub(super) rank: usize,
    /// Of a file, at most.
    pub(super) file_bytes: u64,
    /// Bytes a second; None: no limit.
    pub(super) rate: Option<u64>,
    /// Somebody waits: the limit is off.
    pub(super) hurry: &'a AtomicBool,
}

/// Writes the rank's files into the draft, made if it is not there. They are on disk then.
pub(super) fn write(
    snapshot: &Snapshot,
    draft: &Path,
    how: &How<'_>,
) -> Result<Named, CheckpointError> {
    fs::create_dir_all(draft).map_err(at(draft))?;
    let began = Instant::now();
    let (mut tensors, mut written, mut number) = (Vec::new(), 0, 0);
    let mut open = Open::create(draft, how.rank, number)?;
    for piece in &snapshot.pieces {
        let bytes = piece.numbers.as_bytes();
        let length = bytes.len() as u64;
        if open.offset > 0 && open.offset + length > how.file_bytes {
            open.close(draft)?;
            number += 1;
            open = Open::create(draft, how.rank, number)?;
        }
        tensors.push(Entry {
            name: piece.name.clone(),
            shape: piece.shape.clone(),
            start: piece.start,
            file: open.name.clone(),
            offset: open.offset,
            length,
            crc32c: crc32_iscsi(bytes),
        });
        for block in bytes.chunks(BLOCK_BYTES) {
            open.append(draft, block)?;
            written += block.len() as u64;
            pace(began, written, how);
        }
    }
    open.close(draft)?;
    Index { rank: how.rank, tensors }.write(draft)
}

/// The file that is being written.
struct Open {
    name: String,
    file: File,
    /// What is not written yet: small tensors go together.
    buffer: Vec<u8>,
    /// Where the next tensor begins.
    offset: u64,
}

impl Open {
    fn create(draft: &Path, rank: usize, number: usize) -> Result<Self, CheckpointError> {
        let name = format!("part-{rank:04}-{number:04}.bin");
        let path = draft.join(&name);
        let file = File::create(&path).map_err(at(&path))?;
        Ok(Self { name, file, buffer: Vec::with_capacity(2 * BLOCK_BYTES), offset: 0 })
    }

    fn append(&mut self, draft: &Path, block: &[u8]) -> Result<(), CheckpointError> {
        self.buffer.extend_from_slice(block);
        self.offset += block.len() as u64;
        if self.buffer.len() >= BLOCK_BYTES { self.flush(draft) } else { Ok(()) }
    }

    fn flush(&mut self, draft: &Path) -> Result<(), CheckpointError> {
        self.file.write_all(&self.buffer).map_err(at(&draft.join(&self.name)))?;
        self.buffer.clear();
        Ok(())
    }

    fn close(mut self, draft: &Path) -> Result<(), CheckpointError> {
        self.flush(draft)?;
        self.file.sync_all().map_err(at(&draft.join(&self.name)))
    }
}

/// Written at once, between two looks at the clock.
const BLOCK_BYTES: usize = 1 << 20;

/// Waits until as much may be written as was.
fn pace(began: Instant, written: u64, how: &How<'_>) {
    let Some(rate) = how.rate else { return };
    let due = Duration::from_secs_f64(written as f64 / rate as f64);
    while !how.hurry.load(Ordering::Relaxed) {
        let Some(left) = due.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else {
            return;
        };
        thread::sleep(left.min(HURRY_LOOK));
    }
}

/// Between two looks whether somebody waits.
const HURRY_LOOK: Duration = Duration::from_millis(20);
