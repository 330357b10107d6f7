//! Replays traces of jobs with the scheduler's core, in simulated time.
//!
//! It stands where a daemon stands: it tells the core facts by [`ff2_sched_core::Scheduler::step`] and carries out
//! what that decides, only that programs take the time that a trace says and nothing is real. The core has no other
//! way in, so what is measured here is what runs. Who calls it reads files and prints; this crate does no I/O.
//!
//! The story of a replay: [`trace`] reads jobs from text, [`replay()`] runs them to the end and returns a [`Report`],
//! [`plot`] draws what happened.
#![forbid(unsafe_code)]

mod allreduce;
pub mod checkpoints;
pub mod failures;
mod plot;
mod random;
mod report;
mod simulation;
pub mod trace;
pub mod workload;

pub use allreduce::allreduce_gb_per_s;
pub use plot::plot;
pub use report::{Distribution, Moment, Report};
pub use simulation::{Setting, Stuck, cluster, replay};
