//! What rank 0 does for all: it shows how far the run is, and knows what is saved.

use anyhow::Result;

use super::job::Job;
use crate::{
    checkpoint::{self, CheckpointError, speed},
    watch::{Record, Watch},
};

pub(super) struct Lead {
    pub(super) watch: Watch,
    /// The newest step that is saved, or is about to be.
    pub(super) saved: u64,
}

/// How a save ended; nothing if none did.
pub(super) type Saved = Result<Option<checkpoint::Saved>, CheckpointError>;

impl Lead {
    /// Shows a step, and a save that ended meanwhile.
    pub(super) fn step(&mut self, record: Record, saved: Saved) -> Result<()> {
        self.watch.step(record)?;
        if matches!(saved, Ok(Some(_))) {
            self.watch.draw()?;
        }
        self.report(saved);
        Ok(())
    }

    /// Leaves a word on how far the run came.
    pub(super) fn end(&self, job: &Job, step: u64, how: &str) -> Result<()> {
        self.watch.draw()?;
        job.remember(step, self.watch.records())?;
        self.watch.note(&format!("step {step}: {how}"));
        Ok(())
    }

    /// A save that failed is told, and training goes on: the next may succeed.
    pub(super) fn report(&mut self, saved: Saved) {
        match saved {
            Ok(Some(saved)) => {
                let (path, speed) = (saved.path.display(), speed(saved.bytes, saved.took));
                self.watch.note(&format!("saved {path}: {speed}"));
            }
            Ok(None) => {}
            Err(error) => {
                self.saved = 0;
                self.watch.note(&format!("NOT saved: {:#}", anyhow::Error::from(error)));
            }
        }
    }
}
