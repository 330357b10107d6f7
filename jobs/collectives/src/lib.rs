//! What the ranks of a job compute together: sums, copies and exchanges of numbers (docs/design/0017-collectives.md).
//!
//! Owns how the ranks find each other, the order in which pieces travel and are added, and what happens when a rank
//! dies. Never knows what the numbers mean: the trainer does. The bytes travel over `ff2-fabric`.
//!
//! The story of a sum: [`Communicator::all_reduce`] queues it and returns a [`Pending`] at once. A thread of the
//! communicator carries operations out in order. What it sends to whom, receives from whom and adds where is a list of
//! steps (`schedule`, which does no I/O and is tried for every number of ranks); `run` follows it, piece by piece,
//! through `links`. A piece lies at its receiver (`mailbox`) until the operation there asks for it, and only then is
//! its sender's call answered, so nobody is sent more than a window of pieces ahead.
//!
//! Ranks that fail are known to rank 0, which watches all others and is watched by them (`fate`): whoever waits for
//! anything is then told which rank it was.

mod communicator;
mod environment;
mod error;
mod exchange;
mod fate;
mod limits;
mod links;
mod mailbox;
mod meet;
mod network;
mod pending;
mod run;
pub mod schedule;
mod seat;
mod service;

pub use communicator::Communicator;
pub use environment::Rendezvous;
pub use error::CollectiveError;
pub use exchange::Plain;
pub use network::{Network, Transport};
pub use pending::Pending;
