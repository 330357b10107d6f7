//! What an agent does about the orders that it gets.

use std::collections::BTreeSet;

use ff2_proto::pb::{self, RunPhase, RunWish};

/// In the order in which they are to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action<'a> {
    /// Ends it at once.
    End {
        job: u64,
        attempt: u32,
    },
    /// Nothing is left of it, and nobody asks for it any more.
    Forget {
        job: u64,
        attempt: u32,
    },
    /// The slot is that of its last save, or empty.
    Suspend {
        job: u64,
        attempt: u32,
        grace_ms: u64,
        slot: &'a str,
    },
    /// Tells the job when it writes its checkpoints.
    Slot {
        job: u64,
        attempt: u32,
        slot: &'a str,
    },
    Start(&'a pb::RunOrder),
}

/// From what is there to what should be there.
///
/// An attempt of a job is not started before the one before it is gone from here, whatever the scheduler thinks of it.
pub fn actions<'a>(here: &[pb::RunReport], orders: &'a [pb::RunOrder]) -> Vec<Action<'a>> {
    let mut actions = Vec::new();
    let mut live = BTreeSet::new();
    for run in here {
        let (job, attempt) = (run.job, run.attempt);
        let is_live = matches!(run.phase(), RunPhase::RunRunning | RunPhase::RunUnknown);
        if is_live {
            live.insert(job);
        }
        let order = orders.iter().find(|order| (order.job, order.attempt) == (job, attempt));
        // One node of the job tells it: all see the file.
        if let Some(order) = order.filter(|order| order.node_rank == 0)
            && is_live
            && order.wish() == RunWish::RunGo
            && !order.slot.is_empty()
        {
            actions.push(Action::Slot { job, attempt, slot: &order.slot });
        }
        match order.map(|order| (order.wish(), order)) {
            None if is_live => actions.push(Action::End { job, attempt }),
            None => actions.push(Action::Forget { job, attempt }),
            Some((RunWish::RunEnd, _)) if is_live => actions.push(Action::End { job, attempt }),
            Some((RunWish::RunSuspend, order)) if is_live => {
                let (grace_ms, slot) = (order.grace_ms, order.slot.as_str());
                actions.push(Action::Suspend { job, attempt, grace_ms, slot });
            }
            Some(_) => {}
        }
    }
    let is_here = |order: &&pb::RunOrder| {
        here.iter().any(|run| (run.job, run.attempt) == (order.job, order.attempt))
    };
    let new = orders.iter().filter(|order| order.wish() == RunWish::RunGo && !is_here(order));
    actions.extend(new.filter(|order| !live.contains(&order.job)).map(Action::Start));
    actions
}
