//! What a node is, and how its tasks are confined.
//!
//! Things that whoever starts tasks on a node has to know or do, and nothing of any cluster: what the
//! machine has ([`Hardware`], [`gpus`]), whether this process may make control groups ([`Delegation`]), and the
//! group around the processes of one run ([`Confinement`]): cores, memory, the number of processes, and which
//! GPUs they may open ([`GpuGuard`]).
//!
//! The daemon of a compute node calls it at its start and around each run; the validator reads the health of
//! GPUs by it. Nothing here has threads or state of its own: what the kernel keeps outlives this process.

mod cgroup;
mod confine;
mod delegation;
pub mod gpus;
mod guard;
mod hardware;
pub mod limits;
pub mod links;
pub mod page_cache;

pub use confine::{Confinement, Events, Limits};
pub use delegation::{Delegation, Refusal};
pub use guard::GpuGuard;
pub use hardware::Hardware;
