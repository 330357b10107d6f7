//! Where what lies. Numbers are big-endian, so that keys are in their order.

/// All nodes that ever joined, the history, and which command was the last before the facts.
pub(crate) const AROUND: &[u8] = b"n";
/// The facts, in parts.
pub(crate) const FACTS: u8 = b'f';
/// Commands since the facts, by their place in the log.
pub(crate) const COMMANDS: u8 = b'c';
/// What was submitted, by the first of its jobs.
pub(crate) const ORDERS: u8 = b'o';
/// The first job of a submission, by its client's key.
pub(crate) const SUBMISSIONS: u8 = b's';
/// Submissions all of whose jobs have ended, in the order of their ends.
pub(crate) const ENDED: u8 = b'x';

pub(crate) fn numbered(kind: u8, number: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend(number.to_be_bytes());
    key
}

pub(crate) fn named(kind: u8, name: &str) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend(name.as_bytes());
    key
}

/// The keys of a kind: from here, and up to there without it.
pub(crate) fn all(kind: u8) -> ([u8; 1], [u8; 1]) {
    ([kind], [kind + 1])
}

/// Of a key that [`numbered`] made.
pub(crate) fn number(key: &[u8]) -> u64 {
    key[1..].try_into().map(u64::from_be_bytes).unwrap_or(0)
}
