//! Is there an order of the operations on one register that explains every answer?
//!
//! Wing and Gong's search with memory: an operation may come next if no other one returned before it
//! was called. An operation without an answer may come at any time after its call, or never.

use std::collections::HashSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Set(u64),
    /// Answered with this value.
    Get(u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    pub(super) called: u64,
    /// None: nobody knows whether it was carried out.
    pub(super) returned: Option<u64>,
    pub(super) action: Action,
}

/// Whether the history of one register, which begins as 0, is linearizable.
pub(super) fn is_linearizable(ops: &[Op]) -> bool {
    assert!(ops.len() <= 128, "the search keeps a bit for each operation");
    let must: u128 = bits(ops, |op| op.returned.is_some());
    let mut seen = HashSet::new();
    let mut stack = vec![(0u128, 0u64)];
    while let Some((done, value)) = stack.pop() {
        if done & must == must {
            return true;
        }
        if !seen.insert((done, value)) {
            continue;
        }
        // Nothing may be placed after an operation that had returned before it was called.
        let horizon = ops
            .iter()
            .enumerate()
            .filter(|(n, _)| done & (1 << n) == 0)
            .filter_map(|(_, op)| op.returned)
            .min()
            .unwrap_or(u64::MAX);
        for (n, op) in ops.iter().enumerate() {
            if done & (1 << n) != 0 || op.called > horizon {
                continue;
            }
            match op.action {
                Action::Set(set) => stack.push((done | 1 << n, set)),
                Action::Get(got) if got == value => stack.push((done | 1 << n, value)),
                Action::Get(_) => {}
            }
        }
    }
    false
}

fn bits(ops: &[Op], which: impl Fn(&Op) -> bool) -> u128 {
    ops.iter().enumerate().filter(|(_, op)| which(op)).fold(0, |bits, (n, _)| bits | 1 << n)
}

#[test]
fn the_checker_tells_good_from_bad() {
    let op = |called, returned, action| Op { called, returned, action };
    let set = |called, returned, value| op(called, Some(returned), Action::Set(value));
    let get = |called, returned, value| op(called, Some(returned), Action::Get(value));
    assert!(is_linearizable(&[set(0, 5, 1), get(6, 7, 1)]));
    assert!(!is_linearizable(&[set(0, 5, 1), get(6, 7, 0)]), "a lost write");
    assert!(is_linearizable(&[set(0, 9, 1), get(2, 3, 1), get(4, 5, 1)]));
    assert!(!is_linearizable(&[set(0, 9, 1), get(2, 3, 1), get(4, 5, 0)]), "new, then old");
    let maybe = op(0, None, Action::Set(1));
    assert!(is_linearizable(&[maybe, get(2, 3, 0), get(4, 5, 1)]));
    assert!(!is_linearizable(&[maybe, get(2, 3, 1), get(4, 5, 0)]));
}
