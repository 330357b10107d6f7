//! What rank 0 does for all: it shows how far the run is, and saves.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{is_due, job::Job};
use crate::{
    checkpoint::{CheckpointError, Saver, Snapshot},
    config::RunConfig,
    watch::{Record, Watch},
};

pub(super) struct Lead {
    pub(super) watch: Watch,
    pub(super) saver: Saver,
    /// The newest step that is saved, or is about to be.
    pub(super) saved: u64,
}

impl Lead {
    pub(super) fn step(&mut self, record: Record) -> Result<()> {
        self.watch.step(record)?;
        let saved = self.saver.poll();
        if matches!(saved, Ok(Some(_))) {
            self.watch.draw()?;
        }
        self.report(saved);
        Ok(())
    }

    /// A slot that comes too early is left out; who asked for steps gets all of them.
    pub(super) fn is_save_due(&self, job: &mut Job, step: u64, config: &RunConfig) -> bool {
        let by_steps = is_due(step, config.checkpoint.every) && step < config.steps;
        job.is_save_due(by_steps) && !(job.rate().is_some() && self.saver.is_busy())
    }

    /// Begins to write, at `rate` bytes a second at most, when what was written before is.
    pub(super) fn save(&mut self, snapshot: Snapshot, step: u64, rate: Option<u64>) {
        let earlier = self.saver.wait();
        self.report(earlier);
        match self.saver.start(snapshot, rate) {
            Ok(()) => self.saved = step,
            Err(error) => self.report(Err(error)),
        }
    }

    /// Returns when it is on disk.
    ///
    /// # Errors
    /// It could not be written: nobody would save it later.
    pub(super) fn save_last(&mut self, snapshot: Snapshot) -> Result<()> {
        self.saver.start(snapshot, None)?;
        let saved = self.saver.wait().context("save the last step")?;
        self.report(Ok(saved));
        Ok(())
    }

    /// Waits, without a limit of speed, for what is being written. Tells whether that is this step.
    pub(super) fn is_saved(&mut self, step: u64) -> bool {
        self.saver.hurry();
        let earlier = self.saver.wait();
        let is_saved = earlier.is_ok() && self.saved == step && step > 0;
        self.report(earlier);
        is_saved
    }

    /// Leaves a word on how far the run came.
    pub(super) fn end(&self, job: &Job, step: u64, how: &str) -> Result<()> {
        self.watch.draw()?;
        job.remember(step, self.watch.records())?;
        self.watch.note(&format!("step {step}: {how}"));
        Ok(())
    }

    /// A save that failed is told, and training goes on: the next may succeed.
    pub(super) fn report(&mut self, saved: Result<Option<PathBuf>, CheckpointError>) {
        match saved {
            Ok(Some(path)) => self.watch.note(&format!("saved {}", path.display())),
            Ok(None) => {}
            Err(error) => {
                self.saved = 0;
                self.watch.note(&format!("NOT saved: {:#}", anyhow::Error::from(error)));
            }
        }
    }
}
