//! Which chunks a truncation cuts, where they lie, and how long the chunks say a file is. Pure.

use std::ops::Range;

use ff2_proto::{ChainId, ChunkId, Code, InodeId, Routing, Status, layout, pb};

use crate::limits;

/// Where the chunks of one file lie.
#[derive(Clone, Debug)]
pub(super) struct FileChunks {
    inode: InodeId,
    chunk_size: u64,
    chains: Vec<ChainId>,
}

/// One chunk's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Truncate { chain: ChainId, chunk: ChunkId, length: u32 },
    Remove { chain: ChainId, chunk: ChunkId },
}

impl FileChunks {
    pub(super) fn new(routing: &Routing, inode: u64, at: &pb::Layout) -> Result<Self, Status> {
        let Some(table) = routing.table_chains(at) else {
            let detail = format!(
                "version {} of chain table {} is not known here yet",
                at.table_version, at.table
            );
            return Err(Status::new(Code::StaleRouting, detail));
        };
        if at.chunk_size == 0 || !at.chunk_size.is_power_of_two() || table.is_empty() {
            return Err(Status::new(Code::Corrupt, format!("inode {inode} has no sound layout")));
        }
        Ok(Self {
            inode: InodeId(inode),
            chunk_size: at.chunk_size.into(),
            chains: layout::stripe_chains(&table, at.stripe, at.seed),
        })
    }

    pub(super) fn chains(&self) -> &[ChainId] {
        &self.chains
    }

    /// The first chunk and its chain.
    pub(super) fn first(&self) -> (ChainId, ChunkId) {
        (self.chains[0], ChunkId::new(self.inode, 0))
    }

    pub(super) fn inode(&self) -> InodeId {
        self.inode
    }

    pub(super) fn chunk_size(&self) -> u32 {
        u32::try_from(self.chunk_size).expect("it came from 32 bits")
    }

    /// The chunks that have bytes at or above `size`, if none lies above `bound`.
    pub(super) fn above(&self, size: u64, bound: u64) -> Range<u64> {
        size / self.chunk_size..bound.div_ceil(self.chunk_size)
    }

    /// Few enough to cut without asking the chains which of them exist.
    pub(super) fn are_few(chunks: &Range<u64>) -> bool {
        chunks.end.saturating_sub(chunks.start) <= limits::CHUNKS_UNASKED
    }

    /// What cutting the file to `size` does to one of its chunks; nothing if all of it lies below.
    ///
    /// Those above are emptied and not removed: an empty chunk remembers the cut, so that a second try
    /// of it, whose first was not answered, does not take what a program wrote in between.
    pub(super) fn cut(&self, index: u32, size: u64) -> Option<Step> {
        let begin = u64::from(index) * self.chunk_size;
        let chain = self.chains[index as usize % self.chains.len()];
        let chunk = ChunkId::new(self.inode, index);
        let length = size.saturating_sub(begin);
        let is_within = length < self.chunk_size;
        is_within.then(|| Step::Truncate {
            chain,
            chunk,
            length: u32::try_from(length).expect("less than a chunk"),
        })
    }

    /// Of a file that nobody can reach any more.
    pub(super) fn remove(&self, index: u32) -> Step {
        let chain = self.chains[index as usize % self.chains.len()];
        Step::Remove { chain, chunk: ChunkId::new(self.inode, index) }
    }

    /// The byte behind the last one of this chunk; 0 if it is empty.
    pub(super) fn end(&self, chunk: &pb::ChunkInfo) -> u64 {
        if chunk.length == 0 {
            return 0;
        }
        let index = chunk.chunk.as_ref().map_or(0, |key| key.index);
        u64::from(index) * self.chunk_size + u64::from(chunk.length)
    }
}

#[cfg(test)]
mod tests {
    use ff2_proto::TableId;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn file() -> FileChunks {
        let mut routing = Routing::default();
        let table = pb::ChainTable { id: 1, chains: vec![5, 6, 7], ..Default::default() };
        routing.tables.insert(TableId(1), table);
        let at = pb::Layout {
            table: 1,
            table_version: 1,
            chunk_size: 1 << 20,
            stripe: 2,
            ..Default::default()
        };
        FileChunks::new(&routing, 9, &at).unwrap()
    }

    #[test]
    fn a_cut_shortens_one_chunk_and_empties_those_above() {
        let file = file();
        let size = 2 * MIB + 5;
        let chunks = file.above(size, 4 * MIB + 1);
        assert_eq!(chunks, 2..5);
        let steps: Vec<_> = chunks.map(|index| file.cut(index as u32, size).unwrap()).collect();
        let chunk = |index| ChunkId::new(InodeId(9), index);
        let chain = |index: usize| file.chains[index % 2];
        assert_eq!(
            steps,
            [
                Step::Truncate { chain: chain(2), chunk: chunk(2), length: 5 },
                Step::Truncate { chain: chain(3), chunk: chunk(3), length: 0 },
                Step::Truncate { chain: chain(4), chunk: chunk(4), length: 0 },
            ]
        );
        assert_eq!(file.remove(3), Step::Remove { chain: chain(3), chunk: chunk(3) });
    }

    #[test]
    fn borders() {
        let file = file();
        assert_eq!(file.above(0, 0), 0..0);
        assert_eq!(file.above(MIB, MIB), 1..1, "nothing lies above a chunk's end");
        assert_eq!(file.cut(0, MIB), None);
        assert!(matches!(file.cut(1, MIB), Some(Step::Truncate { length: 0, .. })));
        assert!(matches!(file.cut(0, 1), Some(Step::Truncate { length: 1, .. })));
        assert!(FileChunks::are_few(&(3..3 + limits::CHUNKS_UNASKED)));
        assert!(!FileChunks::are_few(&(0..1000)));
        let key = pb::ChunkKey { inode: 9, index: 3, snapshot: 0 };
        let last = pb::ChunkInfo { chunk: Some(key), length: 7, version: 1, since: 0 };
        assert_eq!(file.end(&last), 3 * MIB + 7);
        assert_eq!(file.end(&pb::ChunkInfo { length: 0, ..last }), 0, "left by a cut");
    }

    #[test]
    fn layouts_that_cannot_be_followed_are_refused() {
        let at = pb::Layout { table: 4, chunk_size: 1 << 20, ..Default::default() };
        let error = FileChunks::new(&Routing::default(), 9, &at).unwrap_err();
        assert_eq!(error.code, Code::StaleRouting);
    }
}
