//! What people see of a run: lines, `metrics.jsonl`, and what else reads the same records.

mod curve;
mod journal;
mod progress;
mod prometheus;
mod record;
mod status;
mod tensorboard;

use std::path::PathBuf;

use anyhow::Result;

use crate::{baseline::Comparison, config::RunConfig};
use journal::Journal;
use progress::Progress;
use prometheus::Prometheus;
pub(crate) use record::Record;
use status::Status;
use tensorboard::TensorBoard;

/// Hands each record to all that show it.
pub(crate) struct Watch {
    out: PathBuf,
    journal: Journal,
    progress: Progress,
    prometheus: Option<Prometheus>,
    /// None outside of jobs.
    status: Option<Status>,
    tensorboard: TensorBoard,
}

impl Watch {
    /// Of a run that goes on behind `step`; later records of earlier attempts are dropped.
    ///
    /// # Errors
    /// Files that cannot be written, and an address that cannot be listened at.
    pub(crate) fn start(config: &RunConfig, step: u64, json: bool) -> Result<Self> {
        let out = config.out.clone();
        let journal = Journal::open(&out, step)?;
        let progress = Progress::new(config, step, json);
        let tensorboard = TensorBoard::create(&out, step)?;
        let prometheus = match config.show.http_listen.as_str() {
            "" => None,
            listen => {
                let (prometheus, address) = Prometheus::serve(listen)?;
                progress.note(&format!("metrics are at http://{address}/metrics"));
                Some(prometheus)
            }
        };
        let status = Status::of_job(config.steps);
        Ok(Self { out, journal, progress, prometheus, status, tensorboard })
    }

    /// # Errors
    /// Files that cannot be written.
    pub(crate) fn step(&mut self, record: Record) -> Result<()> {
        let line = self.progress.step(&record);
        if let Some(prometheus) = &self.prometheus {
            prometheus.step(&record);
        }
        self.tensorboard.append(&record)?;
        self.journal.append(record)?;
        if let Some(status) = &mut self.status {
            status.step(&line, self.journal.records());
        }
        Ok(())
    }

    /// Something that is no step.
    pub(crate) fn note(&self, text: &str) {
        self.progress.note(text);
    }

    /// How the model does beside models that count.
    pub(crate) fn compare(&self, comparison: &Comparison) {
        self.progress.compare(comparison);
    }

    /// Draws the loss of all steps up to now.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn draw(&self) -> Result<()> {
        curve::draw(&self.out, self.journal.records())
    }

    /// All steps up to now.
    pub(crate) fn records(&self) -> &[Record] {
        self.journal.records()
    }
}
