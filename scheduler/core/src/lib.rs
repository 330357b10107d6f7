//! Which job runs where and when.
//!
//! It owns the jobs that have not ended, what is free on each node, quotas, shares and accounts. It never does I/O and
//! has no clock: a daemon (and the replay of traces, by the same calls) tells it facts and carries out what it
//! decides. Equal facts give equal decisions, so replicas that apply the same ones agree.
//!
//! The story of a job: [`Event::Submit`] puts it into the queue (`queue.rs`), by its shape and rank. A pass
//! (`scheduler/pass.rs`) takes the first that fit (`cluster.rs`, `tree.rs`) and places them. Who does not fit may
//! take the place of others (`scheduler/preempt.rs`) or have them moved together (`scheduler/consolidate.rs`): its
//! nodes are claimed (`scheduler/claims.rs`), and when the last victim is gone it starts. [`Scheduler::why`] says
//! what a job waits for. While it runs it may have a slot for its checkpoints (`slots.rs`). docs/design/0013 has the
//! reasons.
//!
//! Who calls it does this, with the facts that come in and a tick when [`Scheduler::next_due`] says so:
//!
//! ```
//! use ff2_sched_core::{Config, Decision, Event, JobSpec, Scheduler};
//! use ff2_topology::{FatTree, Topology};
//!
//! let network = FatTree::default().describe()?;
//! let mut scheduler = Scheduler::new(&Topology::new(&network)?, Config::default());
//! let mut decisions = Vec::new();
//! let job = JobSpec { tasks: 4, ..JobSpec::default() };
//! scheduler.step(1_000, Event::Submit(Box::new(job)), &mut decisions);
//! let [Decision::Accepted { first, .. }, Decision::Place { job, attempt, .. }] = decisions[..] else {
//!     panic!("there is room for it")
//! };
//! assert_eq!(first, job);
//! // The agents start it; when all of its tasks have ended:
//! scheduler.step(9_000, Event::Exited { job, attempt, succeeded: true }, &mut decisions);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod cluster;
mod dependency;
mod event;
mod facts;
mod job;
mod ledger;
pub mod limits;
mod per_node;
mod placement;
mod policy;
mod queue;
mod quota;
mod scheduler;
mod share;
mod slots;
mod tags;
mod timers;
mod tree;
mod why;

pub use cluster::NodeState;
pub use dependency::{After, Dependency, Must};
pub use event::{Decision, Event, Refusal, Scope};
pub use facts::{Facts, Foreign};
pub use job::{
    Cause, Job, JobId, JobSpec, Many, Member, Outcome, Priority, Resources, Shape, State, Then,
};
pub use ledger::{Account, Accounts, cost_milli};
pub use placement::{Placement, Slot};
pub use policy::{Bands, Config, Policy};
pub use quota::{Allowance, QuotaKey};
pub use scheduler::Scheduler;
pub use share::Share;
pub use slots::{Checkpoint, CheckpointSlot, PEAK_PERCENT};
pub use tags::TagSet;
pub use why::Why;
