//! Saves beside the training: one thread a save, one save at a time, on each rank. When all ranks have their parts on
//! disk, rank 0 commits the step; until then it does not exist.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ff2_collectives::Communicator;

use super::{
    CheckpointError, Snapshot,
    folder::{at, commit, draft_folder, retain, step_folder},
    index::{Commit, Named, VERSION},
    write::{How, write},
};
use crate::config::CheckpointConfig;

#[derive(Debug)]
pub(crate) struct Saver {
    place: Arc<Place>,
    /// Of the save that is under way: it is not to be written slowly any more.
    hurry: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Saved, CheckpointError>>>,
}

/// A step that all ranks have saved.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) path: PathBuf,
    /// Of all ranks' files; only rank 0 knows.
    pub(crate) bytes: u64,
    /// From the copy in memory to the commit.
    pub(crate) took: Duration,
}

/// Where and among whom is saved.
#[derive(Debug)]
struct Place {
    folder: PathBuf,
    config: CheckpointConfig,
    /// Folder of the tokenizer.
    data: PathBuf,
    /// A stream of its own: ranks come here when they have written, and train meanwhile.
    ranks: Communicator,
    /// Of this start of the run. A rank that lingers from an earlier one does not write among the others' files.
    attempt: u64,
}

/// What a rank tells the others of its part.
type Told = Result<Named, String>;

impl Saver {
    /// Saves into `folder`; `data` is where the tokenizer is. All ranks make one at the same time.
    ///
    /// # Errors
    /// A rank that is gone.
    pub(crate) fn new(
        folder: &Path,
        config: &CheckpointConfig,
        data: &Path,
        ranks: Communicator,
    ) -> Result<Self, CheckpointError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let attempt = ranks.share(vec![now.as_millis() as u64]).wait()?[0][0];
        let (folder, config, data) = (folder.to_owned(), config.clone(), data.to_owned());
        let place = Arc::new(Place { folder, config, data, ranks, attempt });
        Ok(Self { place, hurry: Arc::default(), thread: None })
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.thread.is_some()
    }

    /// Begins to write, at `rate` bytes a second of all ranks at most. What was written before must have been waited
    /// for. All ranks begin behind the same step.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(crate) fn start(
        &mut self,
        snapshot: Snapshot,
        rate: Option<u64>,
    ) -> Result<(), CheckpointError> {
        assert!(self.thread.is_none(), "one save at a time");
        self.hurry = Arc::default();
        let (place, hurry) = (Arc::clone(&self.place), Arc::clone(&self.hurry));
        let save = move || place.save(&snapshot, rate, &hurry);
        let thread = thread::Builder::new().name("checkpoint".into()).spawn(save);
        self.thread = Some(thread.map_err(at(&self.place.folder))?);
        Ok(())
    }

    /// What is under way is not written slowly any more: somebody waits.
    pub(crate) fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// The save that is done, if one is since the last call.
    ///
    /// # Errors
    /// It failed.
    pub(crate) fn poll(&mut self) -> Result<Option<Saved>, CheckpointError> {
        match &self.thread {
            Some(thread) if thread.is_finished() => self.wait(),
            _ => Ok(None),
        }
    }

    /// Waits for the save that is under way, on all ranks.
    ///
    /// # Errors
    /// It failed.
    pub(crate) fn wait(&mut self) -> Result<Option<Saved>, CheckpointError> {
        let Some(thread) = self.thread.take() else { return Ok(None) };
        thread.join().unwrap_or(Err(CheckpointError::Thread)).map(Some)
    }
}

impl Place {
    /// Writes this rank's part and waits for the others'. Rank 0 alone knows whether the commit succeeded.
    fn save(
        &self,
        snapshot: &Snapshot,
        rate: Option<u64>,
        hurry: &AtomicBool,
    ) -> Result<Saved, CheckpointError> {
        let began = Instant::now();
        let draft = draft_folder(&self.folder, snapshot.head.step, self.attempt);
        let rate = rate.map(|rate| (rate / self.ranks.ranks() as u64).max(1));
        let file_bytes = self.config.file_bytes;
        let how = How { rank: self.ranks.rank(), file_bytes, rate, hurry };
        let written = write(snapshot, &draft, &how);
        let told = self.exchange(&written)?;
        let indexes = written.and_then(|_| all_written(told));
        let committed = match indexes {
            Ok(indexes) if self.ranks.rank() == 0 => self.commit(snapshot, &draft, indexes),
            Ok(_) => Ok((step_folder(&self.folder, snapshot.head.step), 0)),
            Err(error) => Err(error),
        };
        let took = began.elapsed();
        // Nobody begins the next save before rank 0 is done with this one.
        self.ranks.barrier().wait()?;
        committed.map(|(path, bytes)| Saved { path, bytes, took })
    }

    fn exchange(
        &self,
        written: &Result<Named, CheckpointError>,
    ) -> Result<Vec<Told>, CheckpointError> {
        let own: Told = match written {
            Ok(named) => Ok(named.clone()),
            Err(error) => Err(chain(error)),
        };
        let own = serde_json::to_vec(&own).expect("plain fields");
        let all = self.ranks.share(own).wait()?;
        let told = |bytes: &Vec<u8>| {
            serde_json::from_slice(bytes).unwrap_or_else(|error| {
                Err(format!("it says what this version does not know: {error}"))
            })
        };
        Ok(all.iter().map(told).collect())
    }

    /// Where the step is, and its bytes.
    fn commit(
        &self,
        snapshot: &Snapshot,
        draft: &Path,
        indexes: Vec<Named>,
    ) -> Result<(PathBuf, u64), CheckpointError> {
        ff2_model::checkpoint::copy_tokenizer(&self.data, draft)
            .map_err(|source| CheckpointError::Tokenizer { path: self.data.clone(), source })?;
        let head = snapshot.head.clone();
        let step = head.step;
        let committed =
            commit(&self.folder, step, draft, &Commit { version: VERSION, head, indexes })?;
        retain(&self.folder, self.config.keep)?;
        Ok(committed)
    }
}

/// The indexes of all ranks.
fn all_written(told: Vec<Told>) -> Result<Vec<Named>, CheckpointError> {
    let of_rank =
        |(rank, told): (usize, Told)| told.map_err(|reason| CheckpointError::Rank { rank, reason });
    told.into_iter().enumerate().map(of_rank).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
