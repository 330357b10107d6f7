//! From a step on disk to a run's state: all of it, or what one of several ranks will keep.

use std::{
    collections::BTreeMap,
    fs::File,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crc_fast::crc32_iscsi;
use ff2_model::{AdamW, Model, ModelConfig, Parameters, Tensor, Weights, is_trained};
use ff2_parallel::Share;
use zerocopy::IntoBytes;

use super::{
    CheckpointError,
    folder::{at, set_aside, step_folder, steps},
    index::{Commit, Entry, Head, Index},
    snapshot::PARTS,
};
use crate::run::{Optimizer, Training};

/// A step that was read: of tensors and moments that are not this rank's there are zeros.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) folder: PathBuf,
    pub(crate) head: Head,
    pub(crate) model: Model,
    optimizer: AdamW,
    /// Newer steps that are no checkpoints, and why.
    pub(crate) passed_over: Vec<String>,
    /// Of all numbers' bytes those that were read, and how long that took.
    pub(crate) read_bytes: u64,
    pub(crate) all_bytes: u64,
    pub(crate) took: Duration,
}

/// What a rank keeps of a model of this shape; None: all.
pub(crate) type Shared<'a> = &'a dyn Fn(&ModelConfig) -> Option<Share>;

impl Resumed {
    pub(crate) fn into_training(self) -> Training {
        let Head { step, position, tokens, bad_steps, .. } = self.head;
        let (model, optimizer) = (self.model, Optimizer::Whole(Box::new(self.optimizer)));
        Training { model, optimizer, step, position, tokens, bad_steps }
    }
}

/// The step that was asked for, else the newest that no file is missing of; None if there is none at all. Newer ones
/// are set aside. Of it the rank's share is read.
///
/// # Errors
/// A step that is not there, or is damaged: then which earlier one is whole.
pub(crate) fn resume(
    folder: &Path,
    asked: Option<u64>,
    share: Shared<'_>,
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
        match read_share(&step_folder(folder, step), share) {
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
    read_share(step, &|_| None)
}

/// Reads what a rank keeps, and looks that nothing else is missing.
fn read_share(step: &Path, share: Shared<'_>) -> Result<Resumed, CheckpointError> {
    let began = Instant::now();
    let Commit { head, indexes, .. } = Commit::read(step)?;
    let config = ModelConfig::from_json(head.config.clone()).map_err(|detail| {
        let (path, expected) = (step.to_owned(), "a model that this version knows".to_owned());
        CheckpointError::Index { path, found: detail, expected }
    })?;
    let share = share(&config);
    let mut parts = Parts { step, entries: BTreeMap::new(), files: BTreeMap::new(), read_bytes: 0 };
    let mut all_bytes = 0;
    for named in &indexes {
        for entry in Index::read(step, named)?.tensors {
            all_bytes += entry.length;
            parts.entries.entry(entry.name.clone()).or_default().push(entry);
        }
    }
    let mut optimizer = AdamW::new(&config);
    let mut weights = Weights::zeros(&config);
    let (mean, square) = optimizer.moments_mut(head.optimizer_steps);
    for (part, into) in PARTS.iter().zip([&mut weights, mean, square]) {
        let mut tensors = Vec::new();
        let is_weights = *part == PARTS[0];
        into.visit_mut("", &mut |name, tensor| {
            let all = 0..tensor.data().len();
            let wanted = match &share {
                None => all,
                Some(share) if !is_weights => share.moments(&name),
                Some(share) if share.has(&name) => all,
                Some(_) => 0..0,
            };
            if is_weights || is_trained(&name) {
                tensors.push((format!("{part}/{name}"), tensor, wanted));
            }
        });
        let mut tensors = tensors.into_iter();
        tensors.try_for_each(|(name, tensor, wanted)| parts.fill(&name, tensor, wanted))?;
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
    let (passed_over, read_bytes, took) = (Vec::new(), parts.read_bytes, began.elapsed());
    Ok(Resumed { folder, head, model, optimizer, passed_over, read_bytes, all_bytes, took })
}

/// What all ranks wrote.
struct Parts<'a> {
    step: &'a Path,
    /// Of tensors that were not read yet.
    entries: BTreeMap<String, Vec<Entry>>,
    files: BTreeMap<PathBuf, File>,
    read_bytes: u64,
}

impl Parts<'_> {
    /// Reads the pieces of a tensor in which `wanted` of its numbers are. All pieces must be all of it, each number
    /// once; a piece has one checksum, so it is read whole or not.
    fn fill(
        &mut self,
        name: &str,
        tensor: &mut Tensor,
        wanted: Range<usize>,
    ) -> Result<(), CheckpointError> {
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
            let is_wanted = at < wanted.end && wanted.start < at + numbers;
            let (here, later) = rest.split_at_mut(numbers);
            (rest, at) = (later, at + numbers);
            let file = self.open(&path, entry)?;
            if !is_wanted {
                continue;
            }
            file.read_exact_at(here.as_mut_bytes(), entry.offset)
                .map_err(super::folder::at(&path))?;
            self.read_bytes += entry.length;
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

    /// The file, which is long enough for the entry.
    fn open(&mut self, path: &Path, entry: &Entry) -> Result<&File, CheckpointError> {
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
        Ok(file)
    }
}
