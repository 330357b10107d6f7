//! What docs/design/0013 promises, each by a small case; all invariants are checked after each step.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod facts;
mod members;
mod nodes;
mod order;
mod preempt;
mod quota;
mod rig;
mod slots;
mod whole;
