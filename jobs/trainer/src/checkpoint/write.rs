//! From a run's state to a step on disk.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crc_fast::crc32_iscsi;
use ff2_model::{Parameters, Tensor, Weights};

use super::{
    CheckpointError,
    folder::{at, commit, draft_folder, retain},
    index::{Entry, Head, Index, VERSION},
};
use crate::{
    config::CheckpointConfig,
    data::Manifest,
    run::{Training, Whole},
};

/// A copy of all that a run needs to go on; training changes the original meanwhile.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(super) head: Head,
    /// Weights, means of gradients, means of their squares.
    parts: [Weights; 3],
}

/// Before the names of a snapshot's tensors.
pub(super) const PARTS: [&str; 3] = ["weight", "adamw.mean", "adamw.square"];

impl Snapshot {
    /// `sequence` is that of the run, in tokens.
    pub(crate) fn new(
        training: &Training,
        whole: Whole,
        manifest: &Manifest,
        sequence: usize,
    ) -> Self {
        let head = Head {
            step: training.step,
            position: training.position,
            tokens: training.tokens,
            bad_steps: training.bad_steps,
            optimizer_steps: whole.optimizer_steps,
            sequence,
            tokenizer: manifest.tokenizer.clone(),
            config: training.model.config().to_json("float32"),
        };
        Self { head, parts: whole.parts }
    }
}

/// How to write.
#[derive(Debug)]
pub(super) struct How<'a> {
    pub(super) config: &'a CheckpointConfig,
    /// Folder of the tokenizer.
    pub(super) data: &'a Path,
    /// Bytes a second; None: no limit.
    pub(super) rate: Option<u64>,
    /// Somebody waits: the limit is off.
    pub(super) hurry: &'a AtomicBool,
}

/// Writes the step into `folder`, and removes those that are too old.
pub(super) fn write(
    snapshot: &Snapshot,
    folder: &Path,
    how: &How<'_>,
) -> Result<PathBuf, CheckpointError> {
    let step = snapshot.head.step;
    let draft = draft_folder(folder, step);
    if draft.exists() {
        fs::remove_dir_all(&draft).map_err(at(&draft))?;
    }
    fs::create_dir_all(&draft).map_err(at(&draft))?;
    let tensors = write_tensors(snapshot, &draft, how)?;
    let index = Index { version: VERSION, rank: 0, ranks: 1, head: snapshot.head.clone(), tensors };
    index.write(&draft)?;
    ff2_model::checkpoint::copy_tokenizer(how.data, &draft)
        .map_err(|source| CheckpointError::Tokenizer { path: how.data.to_owned(), source })?;
    let path = commit(folder, step)?;
    retain(folder, how.config.keep)?;
    Ok(path)
}

fn write_tensors(
    snapshot: &Snapshot,
    draft: &Path,
    how: &How<'_>,
) -> Result<Vec<Entry>, CheckpointError> {
    let mut tensors: Vec<(String, &Tensor)> = Vec::new();
    for (part, weights) in PARTS.iter().zip(&snapshot.parts) {
        weights.visit("", &mut |name, tensor| tensors.push((format!("{part}/{name}"), tensor)));
    }
    let create = |number: usize| {
        let name = format!("part-0000-{number:04}.bin");
        let path = draft.join(&name);
        let file = File::create(&path).map_err(at(&path))?;
        Ok((name, BufWriter::new(file)))
    };
    let began = Instant::now();
    let (mut entries, mut written, mut number, mut offset) = (Vec::new(), 0, 0, 0);
    let (mut file, mut into) = create(number)?;
    for (name, tensor) in tensors {
        let bytes: Vec<u8> = tensor.data().iter().flat_map(|x| x.to_le_bytes()).collect();
        let length = bytes.len() as u64;
        if offset > 0 && offset + length > how.config.file_bytes {
            into.flush().map_err(at(&draft.join(&file)))?;
            number += 1;
            offset = 0;
            (file, into) = create(number)?;
        }
        for piece in bytes.chunks(PIECE_BYTES) {
            into.write_all(piece).map_err(at(&draft.join(&file)))?;
            written += piece.len() as u64;
            pace(began, written, how);
        }
        let (shape, crc32c) = (tensor.shape().to_vec(), crc32_iscsi(&bytes));
        entries.push(Entry { name, shape, file: file.clone(), offset, length, crc32c });
        offset += length;
    }
    into.flush().map_err(at(&draft.join(&file)))?;
    Ok(entries)
}

/// Written at once, between two looks at the clock.
const PIECE_BYTES: usize = 1 << 20;

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
