//! The machine's table, and three machines in a bad network.

mod bench;
mod clones;
mod disk;
mod history;
mod manager;
mod network;
mod resync;
mod suspect;
mod table;

use bytes::Bytes;
use ff2_proto::{ChainVersion, ChunkId, InodeId, pb};

/// A small generator (SplitMix64), so that a seed says everything.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

pub(super) fn chunk(inode: u64, index: u32) -> ChunkId {
    ChunkId::new(InodeId(inode), index)
}

pub(super) fn chain(version: u64, members: &[(u64, pb::PublicState)]) -> pb::Chain {
    let members = members
        .iter()
        .map(|&(target, state)| pb::ChainMember {
            target,
            state: state.into(),
            node: target as u32,
        })
        .collect();
    pb::Chain { id: 1, version, members, changed_at: version, ..Default::default() }
}

pub(super) fn cv(version: u64) -> ChainVersion {
    ChainVersion(version)
}

pub(super) fn payload(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
