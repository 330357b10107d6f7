//! The scheduler's core as a machine of a replicated group.
//!
//! The leader stamps what it hears with the time and logs it as a [`Command`]; each replica applies it to the same
//! [`State`]. What the core decides is not logged: it follows. Nor is it sent: who leads compares what should run
//! with what the nodes say that runs, so that no decision is lost or carried out twice when leaders change
//! ([`Watch`], and [`actions`] on the other side).
//!
//! In the keys lie the core's facts as they were at some command, and each command since then ([`SchedMachine`]):
//! a restart makes the one and applies the others.
#![forbid(unsafe_code)]

mod agent;
mod command;
mod history;
mod keys;
pub mod limits;
mod links;
mod machine;
mod orders;
mod state;
mod validations;
mod warmth;
mod watch;

pub use agent::{Action, actions};
pub use command::{Answer, Command, Fact, Joined, Submission};
pub use history::{Act, Change, EndedJob, History, How, Run};
pub use links::{Links, Port};
pub use machine::{SchedMachine, order_of};
pub use orders::orders_hash;
pub use state::State;
pub use validations::Validate;
pub use warmth::{Asker, Warmth};
pub use watch::{Told, Watch};
