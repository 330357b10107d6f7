//! How much room each disk has, as its node's last heartbeat told the leader.
//!
//! The record knows a disk's use only as of when it joined: it changes all the time, and nothing that is
//! logged rests on it. What the leader chooses by it is stamped into its facts.

use std::collections::BTreeMap;

use bytes::Bytes;
use ff2_proto::{Routing, pb};

use super::limits;

/// The room of the disks, by uuid.
#[derive(Clone, Debug, Default)]
pub struct Space {
    disks: BTreeMap<Bytes, Room>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Room {
    capacity_bytes: u64,
    used_bytes: u64,
}

impl Space {
    /// What is on record, where `reported` has nothing newer.
    pub fn new<'a>(routing: &Routing, reported: impl IntoIterator<Item = &'a pb::Disk>) -> Self {
        let recorded = routing.nodes.values().flat_map(|node| &node.disks);
        let room = |disk: &pb::Disk| Room {
            capacity_bytes: disk.capacity_bytes,
            used_bytes: disk.used_bytes,
        };
        let mut disks: BTreeMap<Bytes, Room> =
            recorded.map(|disk| (disk.uuid.clone(), room(disk))).collect();
        for disk in reported {
            disks.insert(disk.uuid.clone(), room(disk));
        }
        Self { disks }
    }

    pub(super) fn capacity(&self, uuid: &[u8]) -> u64 {
        self.disks.get(uuid).map_or(0, |room| room.capacity_bytes)
    }

    /// What a target on this disk holds: the disk's use shared out evenly, since blocks are not counted by
    /// target.
    pub(super) fn share(&self, uuid: &[u8], targets: u32) -> u64 {
        self.disks.get(uuid).map_or(0, |room| room.used_bytes / u64::from(targets.max(1)))
    }

    /// How full the disk would be with so many bytes more, in percent; `None` if that is too full.
    pub(super) fn fill_with(&self, uuid: &[u8], more: u64) -> Option<u64> {
        let room = self.disks.get(uuid).copied().unwrap_or_default();
        if room.capacity_bytes == 0 {
            // A disk that tells no capacity is taken for what it may be.
            return Some(0);
        }
        let used = u128::from(room.used_bytes) + u128::from(more);
        let percent =
            u64::try_from(used * 100 / u128::from(room.capacity_bytes)).unwrap_or(u64::MAX);
        (percent < limits::FILL_PERCENT_MAX).then_some(percent)
    }
}
