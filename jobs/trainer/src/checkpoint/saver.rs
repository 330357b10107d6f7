//! Writes beside the training: one thread a save, one save at a time.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{
    CheckpointError, Snapshot,
    folder::at,
    write::{How, write},
};
use crate::config::CheckpointConfig;

#[derive(Debug)]
pub(crate) struct Saver {
    folder: PathBuf,
    config: CheckpointConfig,
    data: PathBuf,
    hurry: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<PathBuf, CheckpointError>>>,
}

impl Saver {
    /// Saves into `folder`; `data` is where the tokenizer is.
    pub(crate) fn new(folder: &Path, config: &CheckpointConfig, data: &Path) -> Self {
        let (folder, config, data) = (folder.to_owned(), config.clone(), data.to_owned());
        Self { folder, config, data, hurry: Arc::default(), thread: None }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.thread.is_some()
    }

    /// Begins to write, at `rate` bytes a second at most. What was written before must have been waited for.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(crate) fn start(
        &mut self,
        snapshot: Snapshot,
        rate: Option<u64>,
    ) -> Result<(), CheckpointError> {
        assert!(self.thread.is_none(), "one save at a time");
        let (folder, config, data) = (self.folder.clone(), self.config.clone(), self.data.clone());
        let hurry = Arc::clone(&self.hurry);
        let save = move || {
            let how = How { config: &config, data: &data, rate, hurry: &hurry };
            write(&snapshot, &folder, &how)
        };
        let thread = thread::Builder::new().name("checkpoint".into()).spawn(save);
        self.thread = Some(thread.map_err(at(&self.folder))?);
        Ok(())
    }

    /// From now on nothing is written slowly: somebody waits.
    pub(crate) fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// The save that is done, if one is since the last call.
    ///
    /// # Errors
    /// It failed.
    pub(crate) fn poll(&mut self) -> Result<Option<PathBuf>, CheckpointError> {
        match &self.thread {
            Some(thread) if thread.is_finished() => self.wait(),
            _ => Ok(None),
        }
    }

    /// Waits for the save that is under way.
    ///
    /// # Errors
    /// It failed.
    pub(crate) fn wait(&mut self) -> Result<Option<PathBuf>, CheckpointError> {
        let Some(thread) = self.thread.take() else { return Ok(None) };
        thread.join().unwrap_or(Err(CheckpointError::Thread)).map(Some)
    }
}
