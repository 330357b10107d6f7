//! Why a job does not run, with the figures.

use serde::{Deserialize, Serialize};

use crate::{
    job::{Job, JobId, Many, State},
    policy::Policy,
    quota::{Allowance, QuotaKey},
    scheduler::Scheduler,
    tree::Want,
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum Why {
    /// It has ended, or never was.
    NoSuchJob,
    /// It runs, or did until a moment ago.
    HasNodes,
    /// Somebody holds it: `job resume` lets it go.
    OnHold,
    /// It comes after others that have not ended.
    Dependencies { jobs: Vec<JobId> },
    /// Those that it comes after have to have begun for some minutes: until then, ms.
    NotBefore { at_ms: u64 },
    /// It comes after all earlier ones of its user and name, of which this is the first.
    Singleton { after: JobId },
    /// So many of its array may be in the queue or run at once, and are.
    ArrayIsFull { at_once: u32 },
    /// With its GPUs a quota would be exceeded.
    Quota { key: QuotaKey, allowance: Allowance, gpus: u64 },
    /// Its nodes are known; these stop there first.
    Stopping { jobs: Vec<JobId> },
    /// The order holds it up: so many go first.
    Behind { jobs: u64 },
    /// GPUs are free, but fewer than it needs.
    TooFewFree { gpus: u64, free: u64 },
    /// Enough are free, but not together: the largest gang of its tasks that fits now.
    Fragmented { gpus: u64, free: u64, tasks: u32, fit: u64 },
    /// It fits in two zones only, and another job lies there that way.
    AcrossZones { tasks: u32, fit: u64 },
    /// It fits, and is placed with the next step.
    Fits,
}

impl Scheduler {
    /// The reason why a job does not run at this moment.
    pub fn why(&self, id: JobId) -> Why {
        let Some(job) = self.jobs.get(&id) else { return Why::NoSuchJob };
        match &job.state {
            State::Running { .. } | State::Stopping { .. } => Why::HasNodes,
            State::Held => self.why_held(job),
            State::Claiming => {
                let claim = &self.claims[&id];
                Why::Stopping { jobs: claim.waits_for.iter().copied().collect() }
            }
            State::Pending => self.why_pending(job),
        }
    }

    fn why_held(&self, job: &Job) -> Why {
        if job.on_hold {
            return Why::OnHold;
        }
        let jobs: Vec<JobId> = job.spec.after.of.iter().map(|dependency| dependency.job).collect();
        match (self.earlier_of_name(job), job.spec.many) {
            _ if !jobs.is_empty() => Why::Dependencies { jobs },
            _ if job.spec.after.not_before_ms > self.now => {
                Why::NotBefore { at_ms: job.spec.after.not_before_ms }
            }
            (Some(after), _) if job.spec.after.singleton => Why::Singleton { after },
            (_, Many::Array { at_once, .. }) => Why::ArrayIsFull { at_once },
            (_, Many::One | Many::Service { .. }) => Why::Dependencies { jobs },
        }
    }

    fn why_pending(&self, job: &Job) -> Why {
        let spec = &job.spec;
        if let Some((key, allowance)) = self.quotas.blocks(spec, job.gpus()) {
            return Why::Quota { key: key.clone(), allowance, gpus: job.gpus() };
        }
        let before = self.queue.before(self.rank(job));
        if before > 0 && self.config.policy == Policy::Fifo {
            return Why::Behind { jobs: before };
        }
        if self.fit(job.id).is_some() {
            return if before > 0 { Why::Behind { jobs: before } } else { Why::Fits };
        }
        let (gpus, free) = (self.least_gpus(spec), self.cluster.free_gpus());
        if free < gpus {
            return Why::TooFewFree { gpus, free };
        }
        let shape = self.shape(spec);
        let room: Vec<u32> =
            self.cluster.ids().map(|node| self.cluster.room(node, shape)).collect();
        let within = Want { tasks: spec.tasks, zone: spec.zone, spread: false, across: false };
        let fit = self.cluster.tree.most(&room, within);
        let fit_across = self.cluster.tree.most(&room, Want { across: true, ..within });
        if fit_across >= u64::from(spec.tasks) {
            return Why::AcrossZones { tasks: spec.tasks, fit };
        }
        Why::Fragmented { gpus, free, tasks: spec.tasks, fit }
    }
}
