//! Whether a node is fit for jobs.
//!
//! [`validate()`] tries what jobs will need (processor, memory, a disk, the mount, the way to another node, GPUs) in
//! bounded time, and says of each figure whether it is as it should be. A slow node makes a whole gang slow, and one
//! that computes or stores wrongly spoils what it touches; both look well to who only asks whether it is up.
//!
//! Figures are compared with absolute limits, which are generous, and with the medians of nodes of the same kind
//! ([`medians`] of earlier reports), which are not. Who calls it (the daemon of a node, on a node that has no jobs)
//! decides what follows from the verdict. For the network test another node runs a [`pair::Server`] meanwhile.

#![forbid(unsafe_code)]

mod budget;
mod cpu;
mod disk;
mod gpu;
mod judge;
pub mod limits;
mod memory;
mod network;
pub mod pair;
mod pattern;
mod plan;
mod random;
mod report;
mod threads;
mod validate;

pub use budget::Depth;
pub use judge::{Bound, Limits};
pub use plan::{Peer, Plan};
pub use report::{Check, Report, Verdict, medians};
pub use validate::validate;
