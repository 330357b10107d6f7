//! `ff2-schedd`: a replica of the scheduler.
//!
//! It hosts the scheduler's group (`ff2-sched-machine` over `ff2-group`), and whoever leads it answers agents and
//! people. The leader hears from the agents what runs ([`agents`]), tells the group what follows from that
//! ([`leader`]), and answers each agent with what should run on its node; what is decided is the machine's matter.
//! People come over gRPC with the tokens of the file system ([`api`]).
//!
//! Nothing of a job is only in a leader's memory: the next one learns from the agents what this one knew.

mod agents;
mod api;
mod chart;
mod format;
mod http;
mod inputs;
mod leader;
pub mod limits;
mod metrics;
mod order;
mod partition;
mod run;
mod show;

pub use format::format;
pub use run::serve;
