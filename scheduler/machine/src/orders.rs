//! What should be on a node, as its agent is told.

use std::hash::{DefaultHasher, Hash, Hasher};

use ff2_proto::pb::{self, RunWish};
use ff2_sched_core::{CheckpointSlot, Job, State as Of};
use ff2_topology::NodeId;

use crate::{limits, state::State, watch::Watch};

impl Watch {
    /// What should be on a node, without what is to run, and the state's version that this is from.
    pub fn orders(&self, state: &State, node: NodeId) -> Vec<pb::RunOrder> {
        let scheduler = state.scheduler();
        let jobs = scheduler.jobs_on(node).iter().filter_map(|id| scheduler.job(*id));
        jobs.filter_map(|job| self.order(state, node, job)).collect()
    }

    fn order(&self, state: &State, node: NodeId, job: &Job) -> Option<pb::RunOrder> {
        let placement = job.placement()?;
        let rank = placement.nodes().position(|other| other == node)?;
        let first = placement.nodes().next()?;
        let before = placement.slots[..rank].iter().map(|slot| slot.tasks).sum();
        let is_doomed = self.is_doomed(job.id, job.attempt);
        let (wish, grace_ms) = match &job.state {
            Of::Running { .. } if is_doomed => (RunWish::RunEnd, 0),
            Of::Running { .. } => (RunWish::RunGo, 0),
            Of::Stopping { .. } => match job.killed_at_ms() {
                Some(at) => (RunWish::RunSuspend, at.saturating_sub(state.scheduler().now_ms())),
                None => (RunWish::RunEnd, 0),
            },
            Of::Held | Of::Pending | Of::Claiming => return None,
        };
        let task = state.scheduler().task_on(job, node);
        let ports = u64::from(limits::MASTER_PORTS.1 - limits::MASTER_PORTS.0);
        Some(pb::RunOrder {
            job: job.id.0,
            attempt: job.attempt,
            wish: wish.into(),
            grace_ms,
            order: String::new(),
            array_index: job.member.map_or(0, |member| member.index),
            array_first: job.member.map_or(0, |member| member.first.0),
            node_rank: rank as u32,
            nodes: placement.slots.len() as u32,
            first_task: before,
            tasks: placement.slots[rank].tasks,
            gpus: task.gpus,
            cpus: task.cpus,
            memory_mib: task.memory,
            master_host: state.host(first).to_owned(),
            // Another one after a failure: somebody else may listen there.
            master_port: u32::from(limits::MASTER_PORTS.0)
                + ((job.id.0 + 17 * u64::from(job.attempt)) % ports) as u32,
            slot: job.slot.map_or_else(String::new, slot_text),
            hosts: placement.nodes().map(|node| state.host(node).to_owned()).collect(),
        })
    }
}

/// As the job's file has it.
fn slot_text(slot: CheckpointSlot) -> String {
    let CheckpointSlot { every_ms, phase_ms, length_ms, bytes_per_s } = slot;
    format!("{every_ms} {phase_ms} {length_ms} {bytes_per_s}")
}

/// Differs when orders do, as far as an agent acts on them.
pub fn orders_hash(orders: &[pb::RunOrder]) -> u64 {
    let mut hash = DefaultHasher::new();
    for order in orders {
        (order.job, order.attempt, order.wish, &order.slot).hash(&mut hash);
    }
    // 0 is that of an agent that had none.
    hash.finish().max(1)
}
