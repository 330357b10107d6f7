//! What a disk may have done to bytes that it took and synced, as it said.

use ff2_proto::ChunkId;
use ff2_storage_core::target::{Record, UpdateId};

use super::{Disk, Place, checksum_of};
use crate::rng::Rng;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// It never reached the platter: what was there before still is.
    Lost,
    /// Half of it did.
    Torn,
    /// It took another block's place.
    Misdirected,
    /// One bit of it changed, then or later.
    Flipped,
}

impl Damage {
    const ALL: [Self; 4] = [Self::Lost, Self::Torn, Self::Misdirected, Self::Flipped];

    pub(crate) fn any(rng: &mut Rng) -> Self {
        *rng.pick(&Self::ALL).expect("there are kinds of damage")
    }
}

/// In a cell that no write reached.
const STALE: u64 = u64::MAX;

impl Disk {
    /// A version whose commit no crash takes back turns out to be damaged, if there is one that `may` be:
    /// never what is still pending, of which docs/SEMANTICS.md promises less.
    pub(crate) fn damage(
        &mut self,
        damage: Damage,
        rng: &mut Rng,
        may: impl Fn(ChunkId, UpdateId) -> bool,
    ) {
        let chunks = self.durable.chunks.iter();
        let committed =
            chunks.filter_map(|(chunk, stored)| Some((chunk, stored.committed.as_ref()?)));
        let block = |(chunk, (record, place)): (&ChunkId, &(Record, Place))| match place {
            Place::Block { number, .. } if may(*chunk, record.id) => Some(*number),
            Place::Block { .. } | Place::Index(_) => None,
        };
        let mut blocks: Vec<u64> = committed.filter_map(block).collect();
        let Some(&number) = rng.pick(&blocks) else { return };
        blocks.retain(|&other| other != number);
        let written = self.blocks[&number].clone();
        let mut content = written.clone();
        match damage {
            Damage::Lost | Damage::Misdirected => content.fill(STALE),
            Damage::Torn => content[written.len() / 2..].fill(STALE),
            Damage::Flipped => {
                let cell = rng.within(0..content.len() as u64) as usize;
                content[cell] ^= 1 << rng.within(0..64);
            }
        }
        self.hurt(number, content);
        if damage == Damage::Misdirected
            && let Some(&other) = rng.pick(&blocks)
        {
            let mut landed = written;
            landed.resize(self.blocks[&other].len(), STALE);
            self.hurt(other, landed);
        }
    }

    fn hurt(&mut self, number: u64, content: Vec<u64>) {
        self.blocks.insert(number, content);
        self.hurt.insert(number);
    }

    /// Reads give whatever lies there.
    pub(crate) fn blind(&mut self) {
        self.is_blind = true;
    }

    /// Whether a version is not what was written.
    pub(crate) fn is_damaged(&self) -> bool {
        let stored = self.now.chunks.values().chain(self.durable.chunks.values());
        let mut places = stored.flat_map(|stored| {
            let committed = stored.committed.as_ref().map(|(_, place)| place);
            committed.into_iter().chain(stored.pending.as_ref().map(|(_, place)| place))
        });
        places.any(|place| match place {
            Place::Block { number, crc } => {
                self.blocks.get(number).is_some_and(|content| checksum_of(content) != *crc)
            }
            Place::Index(_) => false,
        })
    }
}
