//! A linearizability checker for rows of cells, after Wing and Gong (1993) with Lowe's memory of visited
//! states (2017).
//!
//! A history is the operations that clients made on one row (a chunk; the one cell of a register): each
//! has the time of its call and, if it was answered, the time of its return. A change without an answer
//! may have happened at any time after its call, or never.

use std::{collections::HashSet, time::Duration};

/// Cells of a row.
pub(crate) const CELLS: usize = 2;

/// What an operation did. 0 is the value of a cell that nobody wrote, or that was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Write {
        cell: usize,
        value: u64,
    },
    Read {
        cell: usize,
        value: u64,
    },
    /// The cells from this one on are gone.
    Cut {
        from: usize,
    },
    /// All cells are gone, and nobody looks at them or writes them again; it may happen twice.
    Remove,
}

#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) action: Action,
    pub(crate) called: Duration,
    /// `None`: no answer came.
    pub(crate) returned: Option<Duration>,
}

impl Operation {
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.action, Action::Read { .. })
    }
}

type Row = [u64; CELLS];

/// Whether some order of the operations, each between its call and its return, explains all reads.
pub(crate) fn linearizable(history: &[Operation]) -> bool {
    // Unanswered reads say nothing.
    let mut operations: Vec<&Operation> =
        history.iter().filter(|o| o.returned.is_some() || !o.is_read()).collect();
    operations.sort_by_key(|o| o.called);
    Search { operations: &operations, visited: HashSet::new() }.run()
}

/// Operations that have their place in the order: all before `first`, and `ahead`, which are behind it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Done {
    first: u32,
    ahead: Vec<u32>,
}

impl Done {
    fn has(&self, operation: usize) -> bool {
        operation < self.first as usize || self.ahead.contains(&(operation as u32))
    }

    fn with(&self, operation: usize) -> Self {
        let mut done = self.clone();
        let operation = operation as u32;
        if operation != done.first {
            let place = done.ahead.partition_point(|ahead| *ahead < operation);
            done.ahead.insert(place, operation);
            return done;
        }
        done.first += 1;
        while done.ahead.first() == Some(&done.first) {
            done.ahead.remove(0);
            done.first += 1;
        }
        done
    }
}

struct Search<'a> {
    operations: &'a [&'a Operation],
    /// From which no order was found.
    visited: HashSet<(Done, Row)>,
}

impl Search<'_> {
    fn run(&mut self) -> bool {
        // An explicit stack: histories are longer than a thread's stack is deep.
        let mut stack = vec![(Done { first: 0, ahead: Vec::new() }, [0; CELLS])];
        while let Some((done, row)) = stack.pop() {
            if !self.visited.insert((done.clone(), row)) {
                continue;
            }
            let Some(next) = self.candidates(&done) else { return true };
            for operation in next {
                if let Some(after) = step(row, self.operations[operation].action) {
                    stack.push((done.with(operation), after));
                }
            }
        }
        false
    }

    /// What may come next: what was called before the first return among what is left. `None`: nothing
    /// that was answered is left.
    fn candidates(&self, done: &Done) -> Option<Vec<usize>> {
        let mut deadline = Duration::MAX;
        let mut open = Vec::new();
        for (at, operation) in self.operations.iter().enumerate().skip(done.first as usize) {
            if operation.called > deadline {
                break;
            }
            if !done.has(at) {
                deadline = deadline.min(operation.returned.unwrap_or(Duration::MAX));
                open.push(at);
            }
        }
        (deadline < Duration::MAX).then_some(open)
    }
}

/// The row after an operation, or `None` if it could not have read what it read.
fn step(mut row: Row, action: Action) -> Option<Row> {
    match action {
        Action::Write { cell, value } => row[cell] = value,
        Action::Read { cell, value } if row[cell] == value => {}
        Action::Read { .. } => return None,
        Action::Cut { from } => row[from..].fill(0),
        Action::Remove => row.fill(0),
    }
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(value: u64) -> Action {
        Action::Write { cell: 0, value }
    }

    fn read(value: u64) -> Action {
        Action::Read { cell: 0, value }
    }

    fn op(action: Action, called: u64, returned: u64) -> Operation {
        let returned = (returned > 0).then(|| Duration::from_millis(returned));
        Operation { action, called: Duration::from_millis(called), returned }
    }

    #[test]
    fn what_is_linearizable() {
        assert!(linearizable(&[]));
        assert!(linearizable(&[op(read(0), 1, 2), op(write(1), 3, 4), op(read(1), 5, 6)]));
        // A read during a write may see either.
        assert!(linearizable(&[op(write(1), 1, 9), op(read(0), 2, 3), op(read(1), 4, 5)]));
        // An unanswered write may take effect late.
        assert!(linearizable(&[op(write(1), 1, 0), op(read(0), 5, 6), op(read(1), 7, 8)]));
        // A cut takes the cells behind it along.
        let behind = Action::Read { cell: 1, value: 0 };
        let cut = op(Action::Cut { from: 1 }, 5, 6);
        let two = op(Action::Write { cell: 1, value: 2 }, 3, 4);
        assert!(linearizable(&[op(write(1), 1, 2), two, cut, op(behind, 7, 8), op(read(1), 7, 8)]));
    }

    #[test]
    fn what_is_not() {
        assert!(!linearizable(&[op(write(1), 1, 2), op(read(0), 3, 4)]), "a stale read");
        assert!(
            !linearizable(&[op(write(1), 1, 0), op(read(1), 2, 3), op(read(0), 4, 5)]),
            "going back"
        );
        assert!(
            !linearizable(&[
                op(write(1), 1, 2),
                op(write(2), 3, 4),
                op(read(2), 5, 6),
                op(read(1), 7, 8)
            ]),
            "an overwritten value comes back"
        );
        assert!(!linearizable(&[op(read(7), 1, 2)]), "a value that nobody wrote");
        let cut = op(Action::Cut { from: 0 }, 3, 4);
        assert!(!linearizable(&[op(write(1), 1, 2), cut, op(read(1), 5, 6)]), "cut, and there");
    }
}
