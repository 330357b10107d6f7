//! A metad whose disk is new: it asks to be let into its groups under new raft ids, as `ff2-group` does
//! before it has a replica. Simpler than there: both replicas start when both groups have answered, and
//! until then nothing else is answered.

use std::time::Duration;

use ff2_group::MemStore;
use ff2_proto::{Status, pb};

use crate::{
    message::Message,
    metad::Timer,
    net::Place,
    world::{Context, Later},
};

const ASK_AGAIN: Duration = Duration::from_millis(250);

/// What a group keeps on a metad's disk.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) store: MemStore,
    /// 0 until the group let this disk in.
    pub(crate) raft_id: u64,
    incarnation: u64,
}

impl Disk {
    /// Of a founding member.
    pub(crate) fn formed(place: Place, seed: u64, members: &[pb::Member]) -> Self {
        let store = MemStore::formed(&place.to_string(), seed, members);
        Self { store, raft_id: u64::from(place), incarnation: 0 }
    }

    pub(crate) fn empty(place: Place, seed: u64) -> Self {
        let store = MemStore::empty(&place.to_string(), seed);
        Self { store, raft_id: 0, incarnation: seed | 1 }
    }

    /// What a process that is let in under this id leaves behind.
    pub(crate) fn left(store: MemStore, raft_id: u64) -> Self {
        Self { store, raft_id, incarnation: 0 }
    }
}

/// A process that waits to be let in.
#[derive(Debug)]
pub(crate) struct Joining {
    pub(crate) disks: [Disk; 2],
    /// Where to reach whom, as the answers tell: a new replica knows nobody.
    pub(crate) members: [Vec<pb::Member>; 2],
}

impl Joining {
    pub(crate) fn new(disks: [Disk; 2]) -> Self {
        Self { disks, members: [Vec::new(), Vec::new()] }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.disks.iter().all(|disk| disk.raft_id != 0)
    }

    /// Asks everybody: only the leader says yes.
    pub(crate) fn ask(&self, cx: &mut Context<'_>) {
        cx.after(ASK_AGAIN, Later::Metad(Timer::AskAgain));
        for (group, disk) in (0..).zip(&self.disks).filter(|(_, disk)| disk.raft_id == 0) {
            let request = pb::JoinGroupRequest {
                group,
                node: cx.place,
                address: cx.place.to_string(),
                incarnation: disk.incarnation,
            };
            let others = cx.metads.iter().copied().filter(|&to| to != cx.place);
            for to in others.collect::<Vec<_>>() {
                cx.send(to, Message::JoinGroup { request: request.clone() });
            }
        }
    }

    pub(crate) fn on_reply(&mut self, group: u32, reply: Result<pb::JoinGroupReply, Status>) {
        let Ok(reply) = reply else { return };
        let disk = &mut self.disks[group as usize];
        assert!([0, reply.raft_id].contains(&disk.raft_id), "a disk has one raft id");
        disk.raft_id = reply.raft_id;
        self.members[group as usize] = reply.members;
    }
}
