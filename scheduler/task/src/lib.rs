//! The processes of one run of a job on one node.
//!
//! A *job* keeps its number, its folder and its state word for life; each time that it is started is an *attempt*.
//! Here is what one attempt is on one node: ranks that are started with what programs expect in their
//! environment ([`environment`]), the contract by which they are asked to make room ([`contract`]), and the
//! [`supervise()`] loop that ends when all that they ever started has ended.
//!
//! Whoever supervises is a process of its own: everything that a rank leaves behind becomes its child.

pub mod contract;
pub mod environment;
pub mod keeper;
pub mod limits;
mod logs;
mod port;
mod processes;
mod slot;
pub mod spec;
pub mod supervise;
mod user;

pub use contract::{JobFolder, MakeRoom};
pub use logs::Echo;
pub use slot::{CheckpointSlot, NoSlot};
pub use spec::{Notice, RunSpec, SpecError, User};
pub use supervise::{Control, Orders, Outcome, control, supervise};
pub use user::as_user;
