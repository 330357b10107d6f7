//! How much time and how many bytes each part has.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;

/// How thorough a validation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// Before a job starts, or on suspicion: under [`limits::QUICK_MAX`].
    #[default]
    Quick,
    /// Weekly: under [`limits::FULL_MAX`].
    Full,
}

/// What each part aims at. It ends soon after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) total: Duration,
    /// What a part may take beyond twice its aim until it is taken to hang.
    pub(crate) slack: Duration,
    pub(crate) cpu: Duration,
    /// For all numbers of cores together.
    pub(crate) triad: Duration,
    pub(crate) pattern: Duration,
    pub(crate) pattern_bytes: u64,
    /// The free memory is divided by this.
    pub(crate) pattern_divisor: u64,
    /// To write, and again to read.
    pub(crate) disk: Duration,
    pub(crate) disk_bytes: u64,
    /// For each direction.
    pub(crate) network: Duration,
    pub(crate) network_bytes: u64,
    pub(crate) gpu: Duration,
}

impl Budget {
    pub(crate) fn of(depth: Depth) -> Self {
        match depth {
            Depth::Quick => Self {
                total: limits::QUICK_MAX,
                slack: limits::PART_SLACK,
                cpu: Duration::from_secs(1),
                triad: Duration::from_secs(1),
                pattern: Duration::from_secs(1),
                pattern_bytes: 2 << 30,
                pattern_divisor: limits::MEMORY_QUICK,
                disk: Duration::from_millis(750),
                disk_bytes: 512 << 20,
                network: Duration::from_millis(500),
                network_bytes: 8 << 30,
                gpu: Duration::from_secs(1),
            },
            Depth::Full => Self {
                total: limits::FULL_MAX,
                slack: limits::PART_SLACK,
                cpu: Duration::from_secs(15),
                triad: Duration::from_secs(10),
                pattern: Duration::from_secs(25),
                pattern_bytes: 256 << 30,
                pattern_divisor: limits::MEMORY_FULL,
                disk: Duration::from_secs(8),
                disk_bytes: 8 << 30,
                network: Duration::from_secs(5),
                network_bytes: 64 << 30,
                gpu: Duration::from_secs(3),
            },
        }
    }

    /// What all parts aim at together.
    #[cfg(test)]
    fn aim(&self) -> Duration {
        self.cpu + self.triad + self.pattern + 4 * self.disk + 3 * self.network + self.gpu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_fit_into_the_whole() {
        for depth in [Depth::Quick, Depth::Full] {
            let budget = Budget::of(depth);
            assert!(budget.aim() < budget.total * 9 / 10, "{depth:?}: {:?}", budget.aim());
        }
    }
}
