//! The bytes of a small file, as a register: open, write and close is one write; open and read one read.

use super::Model;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Write(u64),
    Read,
}

/// The value that was read, or `None` of a write that was done.
pub type Outcome = Option<u64>;

#[derive(Debug)]
pub struct Register;

impl Model for Register {
    type State = u64;
    type Action = Action;
    type Outcome = Outcome;

    fn initial() -> u64 {
        0
    }

    fn step(value: &u64, action: &Action, outcome: Option<&Outcome>) -> Option<u64> {
        match (action, outcome) {
            (Action::Write(new), _) => Some(*new),
            (Action::Read, Some(Some(read))) => (read == value).then_some(*value),
            (Action::Read, _) => Some(*value),
        }
    }
}
