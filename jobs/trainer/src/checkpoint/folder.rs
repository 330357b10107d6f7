//! The folder of all steps: names, what is there, what is kept.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{CheckpointError, index::Commit};

/// Where the checkpoint of a step is.
pub(crate) fn step_folder(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("step-{step:08}"))
}

/// Where an attempt of the run writes it before it is whole.
pub(super) fn draft_folder(folder: &Path, step: u64, attempt: u64) -> PathBuf {
    folder.join(format!("{HIDDEN}{step:08}.{attempt:x}"))
}

/// Steps that are not whole yet, or not any more.
const HIDDEN: &str = ".step-";

/// Steps that have a checkpoint, in order. None of a folder that is not there.
pub(super) fn steps(folder: &Path) -> Result<Vec<u64>, CheckpointError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at(folder))?,
    };
    let mut steps = Vec::new();
    for entry in entries {
        let name = entry.map_err(at(folder))?.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix("step-")?.parse::<u64>().ok());
        steps.extend(step);
    }
    steps.sort_unstable();
    Ok(steps)
}

/// The newest step that has a checkpoint.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn newest(folder: &Path) -> Result<Option<u64>, CheckpointError> {
    Ok(steps(folder)?.last().copied())
}

/// Makes a checkpoint of a draft in which all ranks' parts are. Who looks sees the whole step or none, also after a
/// crash. Gives its folder, and the bytes of its files.
pub(super) fn commit(
    folder: &Path,
    step: u64,
    draft: &Path,
    record: &Commit,
) -> Result<(PathBuf, u64), CheckpointError> {
    record.write(draft)?;
    let mut bytes = 0;
    for entry in fs::read_dir(draft).map_err(at(draft))? {
        let file = entry.map_err(at(draft))?.path();
        let synced = File::open(&file).and_then(|file| {
            file.sync_all()?;
            file.metadata()
        });
        bytes += synced.map_err(at(&file))?.len();
    }
    sync(draft)?;
    let path = step_folder(folder, step);
    if path.exists() {
        // An older attempt's, from which nobody went on.
        fs::remove_dir_all(&path).map_err(at(&path))?;
    }
    fs::rename(draft, &path).map_err(at(&path))?;
    sync(folder)?;
    Ok((path, bytes))
}

/// Removes all but the newest `keep`, and what crashes left behind.
pub(super) fn retain(folder: &Path, keep: usize) -> Result<(), CheckpointError> {
    let steps = steps(folder)?;
    for &step in &steps[..steps.len().saturating_sub(keep)] {
        let (path, hidden) = (step_folder(folder, step), folder.join(format!("{HIDDEN}{step:08}")));
        // A step that is half removed must not look like one.
        fs::rename(&path, &hidden).map_err(at(&path))?;
    }
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(HIDDEN)) {
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// Renames the steps behind this one, so that a run that goes on from it does not find them. They stay for people.
pub(super) fn set_aside(folder: &Path, behind: u64) -> Result<(), CheckpointError> {
    for step in steps(folder)?.into_iter().filter(|step| *step > behind) {
        let path = step_folder(folder, step);
        let mut aside = path.with_extension("aside");
        let mut number = 1;
        while aside.exists() {
            number += 1;
            aside = path.with_extension(format!("aside-{number}"));
        }
        fs::rename(&path, &aside).map_err(at(&path))?;
    }
    Ok(())
}

fn sync(folder: &Path) -> Result<(), CheckpointError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { path, source }
}
