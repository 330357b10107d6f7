//! A linearizability checker for registers, after Wing and Gong (1993) with Lowe's memory of visited
//! states (2017).
//!
//! A history is the operations that clients made on one register: each has the time of its call and,
//! if it was answered, the time of its return. A write without an answer may have happened at any time
//! after its call, or never.

use std::{collections::BTreeSet, time::Duration};

/// What an operation did. Every write of a history writes another value; 0 is the value before all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Write(u64),
    Read(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) action: Action,
    pub(crate) called: Duration,
    /// `None`: no answer came.
    pub(crate) returned: Option<Duration>,
}

/// Whether some order of the operations, each between its call and its return, explains all reads.
pub(crate) fn linearizable(history: &[Operation]) -> bool {
    // Unanswered reads say nothing.
    let mut operations: Vec<&Operation> = history
        .iter()
        .filter(|o| o.returned.is_some() || matches!(o.action, Action::Write(_)))
        .collect();
    operations.sort_by_key(|o| o.called);
    Search { operations: &operations, visited: BTreeSet::new() }.run()
}

struct Search<'a> {
    operations: &'a [&'a Operation],
    /// (operations done, value) from which no order was found.
    visited: BTreeSet<(Vec<u64>, u64)>,
}

impl Search<'_> {
    fn run(&mut self) -> bool {
        // An explicit stack: histories are longer than a thread's stack is deep.
        let words = self.operations.len().div_ceil(64);
        let mut stack = vec![(vec![0_u64; words], 0_u64)];
        while let Some((done, value)) = stack.pop() {
            if !self.visited.insert((done.clone(), value)) {
                continue;
            }
            let is_done = |i: usize| done[i / 64] >> (i % 64) & 1 == 1;
            let open = (0..self.operations.len()).filter(|&i| !is_done(i));
            // The first return among what is left: what was called after it cannot come before it.
            let deadline = open.clone().filter_map(|i| self.operations[i].returned).min();
            let Some(deadline) = deadline else {
                return true;
            };
            for i in open.take_while(|&i| self.operations[i].called <= deadline) {
                let next = match self.operations[i].action {
                    Action::Write(written) => written,
                    Action::Read(seen) if seen == value => value,
                    Action::Read(_) => continue,
                };
                let mut after = done.clone();
                after[i / 64] |= 1 << (i % 64);
                stack.push((after, next));
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(action: Action, called: u64, returned: u64) -> Operation {
        let returned = (returned > 0).then(|| Duration::from_millis(returned));
        Operation { action, called: Duration::from_millis(called), returned }
    }

    #[test]
    fn what_is_linearizable() {
        use Action::{Read, Write};
        assert!(linearizable(&[]));
        assert!(linearizable(&[op(Read(0), 1, 2), op(Write(1), 3, 4), op(Read(1), 5, 6)]));
        // A read during a write may see either.
        assert!(linearizable(&[op(Write(1), 1, 9), op(Read(0), 2, 3), op(Read(1), 4, 5)]));
        // An unanswered write may take effect late.
        assert!(linearizable(&[op(Write(1), 1, 0), op(Read(0), 5, 6), op(Read(1), 7, 8)]));
    }

    #[test]
    fn what_is_not() {
        use Action::{Read, Write};
        assert!(!linearizable(&[op(Write(1), 1, 2), op(Read(0), 3, 4)]), "a stale read");
        assert!(
            !linearizable(&[op(Write(1), 1, 0), op(Read(1), 2, 3), op(Read(0), 4, 5)]),
            "going back"
        );
        assert!(
            !linearizable(&[
                op(Write(1), 1, 2),
                op(Write(2), 3, 4),
                op(Read(2), 5, 6),
                op(Read(1), 7, 8)
            ]),
            "an overwritten value comes back"
        );
        assert!(!linearizable(&[op(Read(7), 1, 2)]), "a value that nobody wrote");
    }
}
