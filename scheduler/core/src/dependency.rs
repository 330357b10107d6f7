//! What has to become of other jobs before one may run.

use serde::{Deserialize, Serialize};

use crate::job::{Job, JobId, Outcome};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    pub job: JobId,
    pub must: Must,
}

/// What the other job has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Must {
    /// Begin to run, or end without that.
    Start,
    /// Begin to run so long ago, or end without that: what was over when the job came is long enough ago.
    StartBefore {
        ms: u64,
    },
    End,
    Succeed,
    /// End in any other way than well.
    Fail,
}

/// All that a job comes after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct After {
    pub of: Vec<Dependency>,
    /// One of them is enough.
    pub any: bool,
    /// And all earlier jobs of the same user and name have ended.
    pub singleton: bool,
    /// And it is as late: the others began so long ago ([`Must::StartBefore`]).
    pub not_before_ms: u64,
}

/// Of a dependency, or of all of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    Yes,
    NotYet,
    /// It will never be.
    No,
}

impl After {
    /// Forgets those that are decided, and says what that means for the job. `began` is when one that has not ended ran
    /// for the first time.
    pub(crate) fn settle(
        &mut self,
        of: impl Fn(&Dependency) -> Met,
        began: impl Fn(&Dependency) -> Option<u64>,
    ) -> Met {
        let found: Vec<Met> = self.of.iter().map(of).collect();
        let has = |met| found.contains(&met);
        let settled = match self.any {
            true if has(Met::Yes) || found.is_empty() => Met::Yes,
            true if has(Met::NotYet) => Met::NotYet,
            true => Met::No,
            false if has(Met::No) => Met::No,
            false if has(Met::NotYet) => Met::NotYet,
            false => Met::Yes,
        };
        let since = self.of.iter().zip(&found).filter(|(_, met)| **met == Met::Yes);
        let until = since.map(|(on, _)| match on.must {
            Must::StartBefore { ms } => began(on).map_or(0, |began| began + ms),
            Must::Start | Must::End | Must::Succeed | Must::Fail => 0,
        });
        let until = if self.any { until.min() } else { until.max() };
        self.not_before_ms = self.not_before_ms.max(until.unwrap_or(0));
        let mut found = found.into_iter();
        self.of.retain(|_| settled == Met::NotYet && found.next() == Some(Met::NotYet));
        settled
    }
}

impl Must {
    /// `job` is the other one, unless it has ended; `outcome` how it did, unless that is forgotten.
    pub(crate) fn met(self, job: Option<&Job>, outcome: Option<Outcome>) -> Met {
        match (self, job) {
            (Self::Start | Self::StartBefore { .. }, Some(job)) if job.attempt > 0 => Met::Yes,
            (_, Some(_)) => Met::NotYet,
            (Self::Start | Self::StartBefore { .. } | Self::End, None) => Met::Yes,
            (Self::Succeed, None) if outcome == Some(Outcome::Succeeded) => Met::Yes,
            (Self::Fail, None) if outcome.is_some_and(|how| how != Outcome::Succeeded) => Met::Yes,
            (Self::Succeed | Self::Fail, None) => Met::No,
        }
    }
}
