//! How the network treats connections, by what they carry.

use ff2_verbs::Class;

use crate::transport::Lane;

/// What the calls of a process are for. Servers answer each connection in the class of its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workload {
    /// Names, and the bytes of files.
    #[default]
    Files,
    /// As files, but what is written comes in bursts that may wait: a mount for checkpoints alone.
    Checkpoints,
    /// Sums and exchanges between the ranks of a job, which all wait for the slowest.
    Collectives,
}

impl Workload {
    /// In a hello. 0 is also what releases say that know nothing of this.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Files => 0,
            Self::Checkpoints => 1,
            Self::Collectives => 2,
        }
    }

    /// What this release does not know is treated as files.
    pub(crate) fn of(number: u32) -> Self {
        match number {
            1 => Self::Checkpoints,
            2 => Self::Collectives,
            _ => Self::Files,
        }
    }
}

/// One class for each kind of traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// Small messages.
    pub metadata: Class,
    /// Bulk bytes of files.
    pub storage: Class,
    pub checkpoint: Class,
    pub collective: Class,
}

impl Classes {
    /// Collectives are one class: a small sum is waited for as much as a large one.
    pub(super) fn of(&self, lane: Lane, workload: Workload) -> Class {
        match (workload, lane) {
            (Workload::Collectives, _) => self.collective,
            (Workload::Files | Workload::Checkpoints, Lane::Small) => self.metadata,
            (Workload::Files, Lane::Bulk) => self.storage,
            (Workload::Checkpoints, Lane::Bulk) => self.checkpoint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_traffic_has_its_class() {
        let class = |service_level| Class { service_level, traffic_class: 4 * service_level };
        let [metadata, storage, checkpoint, collective] = [1, 2, 3, 4].map(class);
        let classes = Classes { metadata, storage, checkpoint, collective };
        let of = |workload| [Lane::Small, Lane::Bulk].map(|lane| classes.of(lane, workload));
        assert_eq!(of(Workload::Files), [metadata, storage]);
        assert_eq!(of(Workload::Checkpoints), [metadata, checkpoint]);
        assert_eq!(of(Workload::Collectives), [collective; 2]);
    }

    #[test]
    fn workloads_come_back_from_a_hello_and_unknown_ones_are_files() {
        for workload in [Workload::Files, Workload::Checkpoints, Workload::Collectives] {
            assert_eq!(Workload::of(workload.number()), workload);
        }
        assert_eq!(Workload::of(7), Workload::Files);
    }
}
