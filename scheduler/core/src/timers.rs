//! When jobs are to be looked at again, though nothing happens.

use std::collections::{BTreeMap, BTreeSet};

use crate::job::JobId;

/// One time for each job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(u64, JobId)>,
    of: BTreeMap<JobId, u64>,
}

impl Timers {
    pub(crate) fn set(&mut self, job: JobId, at: Option<u64>) {
        if let Some(before) = self.of.remove(&job) {
            self.due.remove(&(before, job));
        }
        if let Some(at) = at {
            self.of.insert(job, at);
            self.due.insert((at, job));
        }
    }

    pub(crate) fn next(&self) -> Option<u64> {
        Some(self.due.first()?.0)
    }

    pub(crate) fn pop(&mut self, now: u64) -> Option<JobId> {
        let (at, job) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.set(job, None);
        Some(job)
    }
}
