//! From a step on disk to a run's state.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crc_fast::crc32_iscsi;
use ff2_model::{AdamW, Model, ModelConfig, Parameters, Weights};

use super::{
    CheckpointError,
    folder::{at, set_aside, step_folder, steps},
    index::{Entry, Head, Index},
    write::PARTS,
};
use crate::run::{Optimizer, Training};

/// A step that was read whole.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) folder: PathBuf,
    pub(crate) head: Head,
    pub(crate) model: Model,
    optimizer: AdamW,
}

impl Resumed {
    pub(crate) fn into_training(self) -> Training {
        let Head { step, position, tokens, bad_steps, .. } = self.head;
        let (model, optimizer) = (self.model, Optimizer::Whole(Box::new(self.optimizer)));
        Training { model, optimizer, step, position, tokens, bad_steps }
    }
}

/// The step that was asked for, else the newest; None if there is none at all.
///
/// # Errors
/// A step that is not there, or is damaged: then which earlier one is whole.
pub(crate) fn resume(
    folder: &Path,
    asked: Option<u64>,
) -> Result<Option<Resumed>, CheckpointError> {
    let steps = steps(folder)?;
    let step = match (asked, steps.last()) {
        (None, None) => return Ok(None),
        (None, Some(newest)) => *newest,
        (Some(step), _) if steps.contains(&step) => step,
        (Some(step), _) => {
            let there: Vec<_> = steps.iter().map(u64::to_string).collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            return Err(CheckpointError::NoStep { path: folder.to_owned(), step, there });
        }
    };
    let read = read(&step_folder(folder, step)).map_err(|source| {
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
    })?;
    if asked.is_some() {
        set_aside(folder, step)?;
    }
    Ok(Some(read))
}

/// Reads and checks all of a step.
///
/// # Errors
/// Files that are missing, cut or damaged, and tensors that are not those of the model.
pub(crate) fn read(step: &Path) -> Result<Resumed, CheckpointError> {
    let index = Index::read(step)?;
    let head = index.head;
    let config = ModelConfig::from_json(head.config.clone()).map_err(|detail| {
        let (path, expected) = (step.to_owned(), "a model that this version knows".to_owned());
        CheckpointError::Index { path, found: detail, expected }
    })?;
    let mut entries: BTreeMap<&str, &Entry> =
        index.tensors.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let mut files = BTreeMap::new();
    let mut optimizer = AdamW::new(&config);
    let mut weights = Weights::zeros(&config);
    let (mean, square) = optimizer.moments_mut(head.optimizer_steps);
    for (part, into) in PARTS.iter().zip([&mut weights, mean, square]) {
        let mut failed = None;
        into.visit_mut("", &mut |name, tensor| {
            if failed.is_none() {
                let name = format!("{part}/{name}");
                let shape = tensor.shape().to_vec();
                failed =
                    tensor_bytes(step, &mut files, entries.remove(name.as_str()), &name, &shape)
                        .map(|bytes| {
                            let numbers =
                                bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
                            tensor
                                .data_mut()
                                .iter_mut()
                                .zip(numbers)
                                .for_each(|(to, from)| *to = from);
                        })
                        .err();
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
    }
    if let Some((name, entry)) = entries.first_key_value() {
        return Err(CheckpointError::Tensor {
            path: step.join(&entry.file),
            tensor: (*name).to_owned(),
            found: "not part of the model".to_owned(),
            expected: "the tensors of the index's config alone".to_owned(),
        });
    }
    Ok(Resumed { folder: step.to_owned(), head, model: Model::new(config, weights), optimizer })
}

/// The bytes of one tensor, checked.
fn tensor_bytes(
    step: &Path,
    files: &mut BTreeMap<String, File>,
    entry: Option<&Entry>,
    name: &str,
    shape: &[usize],
) -> Result<Vec<u8>, CheckpointError> {
    let wrong = |path: PathBuf, found: String, expected: String| {
        Err(CheckpointError::Tensor { path, tensor: name.to_owned(), found, expected })
    };
    let Some(entry) = entry else {
        return wrong(step.to_owned(), "not in the index".to_owned(), format!("shape {shape:?}"));
    };
    // A name with a folder in it could reach any file of the machine.
    let path = step.join(Path::new(&entry.file).file_name().unwrap_or_default());
    let length = 4 * shape.iter().product::<usize>();
    if entry.shape != shape || entry.length != length as u64 {
        let found = format!("shape {:?} in {} bytes", entry.shape, entry.length);
        return wrong(path, found, format!("{shape:?} in {length}"));
    }
    let file = match files.entry(entry.file.clone()) {
        std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
        std::collections::btree_map::Entry::Vacant(new) => {
            new.insert(File::open(&path).map_err(at(&path))?)
        }
    };
    let there = file.metadata().map_err(at(&path))?.len();
    if entry.offset.checked_add(entry.length).is_none_or(|end| end > there) {
        let expected = format!("at least {}", entry.offset.saturating_add(entry.length));
        return wrong(path, format!("a file of {there} bytes"), expected);
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, entry.offset).map_err(at(&path))?;
    let found = crc32_iscsi(&bytes);
    if found != entry.crc32c {
        return wrong(path, format!("CRC32C {found:08x}"), format!("{:08x}", entry.crc32c));
    }
    Ok(bytes)
}
