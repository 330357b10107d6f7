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
//! what a job waits for. docs/design/0013 has the reasons.
#![forbid(unsafe_code)]

mod cluster;
mod event;
mod facts;
mod job;
mod ledger;
pub mod limits;
mod placement;
mod policy;
mod queue;
mod quota;
mod scheduler;
mod share;
mod timers;
mod tree;
mod why;

pub use cluster::NodeState;
pub use event::{Decision, Event, Refusal, Scope};
pub use facts::{Facts, Foreign};
pub use job::{
    Cause, Dependency, Job, JobId, JobSpec, Many, Member, Outcome, Priority, Resources, Shape,
    State, Then,
};
pub use ledger::{Account, Accounts, cost_milli};
pub use placement::{Placement, Slot};
pub use policy::{Bands, Config, Policy};
pub use quota::{Allowance, QuotaKey};
pub use scheduler::Scheduler;
pub use share::Share;
pub use why::Why;
