//! What the runs of this node are confined by, where that can be.

use std::{io, process::Command};

use ff2_node::{Confinement, Delegation, GpuGuard, Limits, gpus::Gpu, limits};
use ff2_proto::pb::RunOrder;

#[derive(Debug)]
pub(crate) struct Confiner {
    /// Or why not, in words for the people who run the node.
    delegation: Result<Delegation, String>,
    /// Of the node; none that are real: nobody is kept from them.
    gpus: Vec<Gpu>,
}

impl Confiner {
    pub(crate) fn new(gpus: Vec<Gpu>) -> Self {
        let delegation = Delegation::claim().map_err(|refusal| refusal.to_string());
        Self { delegation, gpus }
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        match (&self.delegation, GpuGuard::of(&self.gpus, &[])) {
            (Ok(_), Some(_)) => "cores, memory, processes and GPUs are confined".into(),
            (Ok(_), None) => "cores, memory and processes are confined".into(),
            (Err(why), _) => format!("not confined: {why}"),
        }
    }

    /// Lets the keeper of a run begin inside of what the job may have on this node. What it says nothing of is not
    /// confined.
    pub(crate) fn confine(
        &self,
        name: &str,
        order: &RunOrder,
        gpus: &[u32],
        keeper: &mut Command,
    ) -> io::Result<()> {
        let Ok(delegation) = &self.delegation else { return Ok(()) };
        let allowed: Vec<Gpu> =
            self.gpus.iter().filter(|gpu| gpus.contains(&gpu.index)).cloned().collect();
        let memory_mib = u64::from(order.memory_mib) * u64::from(order.tasks);
        let limits = Limits {
            cpus: if order.cpus == 0 { u32::MAX } else { order.cpus * order.tasks },
            memory_mib: if memory_mib == 0 { u64::MAX } else { memory_mib },
            pids: limits::PIDS,
            gpus: GpuGuard::of(&self.gpus, &allowed),
        };
        // Of a run that was cut short before it was known.
        self.remove(name);
        Confinement::create(delegation, name, &limits)?.confine(keeper)
    }

    fn of(&self, name: &str) -> Option<Confinement> {
        let delegation = self.delegation.as_ref().ok()?;
        Confinement::open(delegation, name).ok()?
    }

    /// Whether the kernel ended it because its memory was over.
    pub(crate) fn ran_out_of_memory(&self, name: &str) -> bool {
        let events = self.of(name).and_then(|confinement| confinement.events().ok());
        events.is_some_and(|events| events.oom_kill > 0)
    }

    /// Ends what is left inside.
    pub(crate) fn end(&self, name: &str) {
        if let Some(confinement) = self.of(name)
            && let Err(error) = confinement.kill()
        {
            tracing::warn!(name, %error, "a run's control group cannot be ended");
        }
    }

    /// A group that holds processes stays.
    pub(crate) fn remove(&self, name: &str) {
        if let Some(confinement) = self.of(name)
            && let Err(error) = confinement.remove()
        {
            tracing::warn!(name, %error, "a run's control group cannot be removed yet");
        }
    }
}
