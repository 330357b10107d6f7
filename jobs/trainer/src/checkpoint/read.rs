//! From a step on disk to a run's state.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crc_fast::crc32_iscsi;
use ff2_model::{AdamW, Model, ModelConfig, Parameters, Tensor, Weights, is_trained};
use zerocopy::IntoBytes;

use super::{
    CheckpointError,
    folder::{at, set_aside, step_folder, steps},
    index::{Commit, Entry, Head, Index},
    snapshot::PARTS,
};
use crate::run::{Optimizer, Training};

/// A step that was read whole.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) folder: PathBuf,
    pub(crate) head: Head,
    pub(crate) model: Model,
    optimizer: AdamW,
    /// Newer steps that are no checkpoints, and why.
    pub(crate) passed_over: Vec<String>,
}

impl Resumed {
    pub(crate) fn into_training(self) -> Training {
        let Head { step, position, tokens, bad_steps, .. } = self.head;
        let (model, optimizer) = (self.model, Optimizer::Whole(Box::new(self.optimizer)));
        Training { model, optimizer, step, position, tokens, bad_steps }
    }
}

/// The step that was asked for, else the newest that no file is missing of; None if there is none at all. Newer ones
/// are set aside.
///
/// # Errors
/// A step that is not there, or is damaged: then which earlier one is whole.
pub(crate) fn resume(
    folder: &Path,
    asked: Option<u64>,
) -> Result<Option<Resumed>, CheckpointError> {
    let steps = steps(folder)?;
    if let Some(step) = asked
        && !steps.contains(&step)
    {
        let there: Vec<_> = steps.iter().map(u64::to_string).collect();
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        return Err(CheckpointError::NoStep { path: folder.to_owned(), step, there });
    }
    let mut passed_over = Vec::new();
    for &step in steps.iter().rev().filter(|step| asked.is_none_or(|asked| asked == **step)) {
        match read(&step_folder(folder, step)) {
            Ok(mut read) => {
                if asked.is_some() || !passed_over.is_empty() {
                    set_aside(folder, step)?;
                }
                read.passed_over = passed_over;
                return Ok(Some(read));
            }
            // If all are torn, somebody should look before a run begins anew.
            Err(torn) if asked.is_none() && torn.is_torn() && step != steps[0] => {
                passed_over.push(format!("step {step} is no checkpoint: {torn}"));
            }
            Err(source) => return Err(damaged(folder, &steps, step, source)),
        }
    }
    Ok(None)
}

/// Tells which earlier step is whole.
fn damaged(folder: &Path, steps: &[u64], step: u64, source: CheckpointError) -> CheckpointError {
    let mut earlier = steps.iter().rev().filter(|earlier| **earlier < step);
    let whole = earlier.find(|earlier| read(&step_folder(folder, **earlier)).is_ok());
    let way_out = match whole {
        Some(whole) => {
            format!("that of step {whole} is whole: go on from it with --resume-from {whole}")
        }
        None => "no earlier one is whole: begin again with an empty folder".to_owned(),
    };
    let path = step_folder(folder, step);
    CheckpointError::Damaged { path, way_out, source: Box::new(source) }
}

/// Reads and checks all of a step.
///
/// # Errors
/// Files that are missing, cut or damaged, and tensors that are not those of the model.
pub(crate) fn read(step: &Path) -> Result<Resumed, CheckpointError> {
    let Commit { head, indexes, .. } = Commit::read(step)?;
    let config = ModelConfig::from_json(head.config.clone()).map_err(|detail| {
        let (path, expected) = (step.to_owned(), "a model that this version knows".to_owned());
        CheckpointError::Index { path, found: detail, expected }
    })?;
    let mut parts = Parts { step, entries: BTreeMap::new(), files: BTreeMap::new() };
    for named in &indexes {
        for entry in Index::read(step, named)?.tensors {
            parts.entries.entry(entry.name.clone()).or_default().push(entry);
        }
    }
    let mut optimizer = AdamW::new(&config);
    let mut weights = Weights::zeros(&config);
    let (mean, square) = optimizer.moments_mut(head.optimizer_steps);
    for (part, into) in PARTS.iter().zip([&mut weights, mean, square]) {
        let mut tensors = Vec::new();
        into.visit_mut("", &mut |name, tensor| {
            if *part == PARTS[0] || is_trained(&name) {
                tensors.push((format!("{part}/{name}"), tensor));
            }
        });
        tensors.into_iter().try_for_each(|(name, tensor)| parts.fill(&name, tensor))?;
    }
    if let Some((name, entries)) = parts.entries.first_key_value() {
        return Err(CheckpointError::Tensor {
            path: step.join(&entries[0].file),
            tensor: name.clone(),
            found: "not part of the model".to_owned(),
            expected: "the tensors of the checkpoint's config alone".to_owned(),
        });
    }
    let (folder, model) = (step.to_owned(), Model::new(config, weights));
    Ok(Resumed { folder, head, model, optimizer, passed_over: Vec::new() })
}

/// What all ranks wrote.
struct Parts<'a> {
    step: &'a Path,
    /// Of tensors that were not read yet.
    entries: BTreeMap<String, Vec<Entry>>,
    files: BTreeMap<PathBuf, File>,
}

impl Parts<'_> {
    /// Reads a tensor from its pieces, which must be all of it, each number once.
    fn fill(&mut self, name: &str, tensor: &mut Tensor) -> Result<(), CheckpointError> {
        let shape = tensor.shape().to_vec();
        let wrong = |path: PathBuf, found: String, expected: String| CheckpointError::Tensor {
            path,
            tensor: name.to_owned(),
            found,
            expected,
        };
        let Some(mut entries) = self.entries.remove(name) else {
            let expected = format!("shape {shape:?}");
            return Err(wrong(self.step.to_owned(), "not in the index".to_owned(), expected));
        };
        entries.sort_by_key(|entry| entry.start);
        let mut rest = tensor.data_mut();
        let mut at = 0;
        for entry in &entries {
            // A name with a folder in it could reach any file of the machine.
            let path = self.step.join(Path::new(&entry.file).file_name().unwrap_or_default());
            let numbers = (entry.length / 4) as usize;
            let fits = entry.length.is_multiple_of(4) && numbers <= rest.len();
            if entry.shape != shape || entry.start != at || !fits {
                let Entry { start, length, shape: found, .. } = entry;
                let found = format!("shape {found:?}, {length} bytes from number {start}");
                let expected = format!("{shape:?}, at most {} from {at}", 4 * rest.len());
                return Err(wrong(path, found, expected));
            }
            let (here, later) = rest.split_at_mut(numbers);
            (rest, at) = (later, at + numbers);
            self.read_exact(&path, entry, here.as_mut_bytes())?;
            let found = crc32_iscsi(here.as_bytes());
            if found != entry.crc32c {
                let expected = format!("{:08x}", entry.crc32c);
                return Err(wrong(path, format!("CRC32C {found:08x}"), expected));
            }
        }
        if !rest.is_empty() {
            let found = format!("{at} numbers of shape {shape:?}");
            return Err(wrong(self.step.to_owned(), found, format!("{}", at + rest.len())));
        }
        Ok(())
    }

    fn read_exact(
        &mut self,
        path: &Path,
        entry: &Entry,
        bytes: &mut [u8],
    ) -> Result<(), CheckpointError> {
        if !self.files.contains_key(path) {
            let file = File::open(path).map_err(at(path))?;
            self.files.insert(path.to_owned(), file);
        }
        let file = &self.files[path];
        let found = file.metadata().map_err(at(path))?.len();
        let expected = entry.offset.saturating_add(entry.length);
        if expected > found {
            let of = format!("tensor `{}`: ", entry.name);
            return Err(CheckpointError::Cut { path: path.to_owned(), of, found, expected });
        }
        file.read_exact_at(bytes, entry.offset).map_err(at(path))
    }
}
