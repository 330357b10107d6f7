//! When a job writes its checkpoints: one line of text, so that any language can read it.

use std::{fmt, str::FromStr};

/// Its writes begin at each moment of the Unix clock that is `phase_ms` after a multiple of `every_ms`.
///
/// Read from and written as `EVERY PHASE LENGTH RATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointSlot {
    pub every_ms: u64,
    pub phase_ms: u64,
    /// For so long it writes, if it writes as fast as it may.
    pub length_ms: u64,
    /// All nodes of the job together.
    pub bytes_per_s: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no slot: expected four numbers, the first and the last more than 0")]
pub struct NoSlot(String);

impl fmt::Display for CheckpointSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { every_ms, phase_ms, length_ms, bytes_per_s } = self;
        write!(f, "{every_ms} {phase_ms} {length_ms} {bytes_per_s}")
    }
}

impl FromStr for CheckpointSlot {
    type Err = NoSlot;

    fn from_str(text: &str) -> Result<Self, NoSlot> {
        let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[every_ms, phase_ms, length_ms, bytes_per_s])
                if every_ms > 0 && bytes_per_s > 0 =>
            {
                Ok(Self { every_ms, phase_ms, length_ms, bytes_per_s })
            }
            _ => Err(NoSlot(text.chars().take(80).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_four_numbers() {
        let text = "300000 45000 150000 7000000000";
        let slot: CheckpointSlot = format!("{text}\n").parse().unwrap();
        assert_eq!((slot.phase_ms, slot.bytes_per_s), (45_000, 7_000_000_000));
        assert_eq!(slot.to_string(), text);
        for text in ["", "1 2 3", "1 2 3 4 5", "0 2 3 4", "1 2 3 0", "1 2 3 x", "1 -2 3 4"] {
            assert!(text.parse::<CheckpointSlot>().is_err(), "{text:?}");
        }
    }
}
