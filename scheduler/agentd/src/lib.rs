//! `ff2-agentd`: the agent of a compute node.
//!
//! It tells the scheduler what runs here and is told what should ([`agent`]). Each run is in the care of a keeper, a
//! process of its own (`ff2-task`), so an agent may end and start again while jobs go on. What is here is found in the
//! runs' folders ([`runs`]); nothing is only in this process's memory but which orders it has carried out.
//!
//! A run goes on only as long as the scheduler says so: each answer renews its keeper's time. When a node is cut off,
//! its runs end before they are started elsewhere, whether or not the agent lives.

mod agent;
mod confine;
mod data;
mod id;
pub mod limits;
mod links;
mod pair;
mod run;
mod runs;
mod spec;
mod status_line;
mod validation;

pub use run::{keep, serve};
