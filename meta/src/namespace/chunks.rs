//! What the leader does to chunks: cuts, removes, writes what leaves the namespace, and asks how far
//! they reach.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use ff2_fabric::{
    Peers, RoutingCache, SharedBuf,
    chain::{ChainClient, ChunkUpdate},
};
use ff2_group::Term;
use ff2_proto::{ChainId, Status, pb};
use futures::{StreamExt, TryStreamExt, stream};
use pb::UpdateKind;

use super::plan::{FileChunks, Step};
use crate::limits;

/// The steps of a truncation or removal: planned first, made then.
#[derive(Debug, Default)]
pub(super) struct Cut {
    chunk_size: u32,
    steps: Vec<Step>,
}

impl Cut {
    /// As many steps together as are made well within a call's time.
    pub(super) fn batches(&self) -> impl Iterator<Item = &[Step]> {
        self.steps.chunks(limits::CHUNK_STEPS)
    }
}

/// The chains, as a daemon reaches them.
#[derive(Clone, Debug)]
pub(crate) struct Chunks {
    pub(crate) client: Arc<ChainClient>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) routing: Arc<RoutingCache>,
}

impl Chunks {
    /// What cutting a file's chunks takes.
    pub(super) async fn plan(&self, term: &Term, cut: &pb::Truncation) -> Result<Cut, Status> {
        let Some(layout) = &cut.layout else { return Ok(Cut::default()) };
        let file = FileChunks::new(&self.routing.get(), cut.inode, layout)?;
        let bound = (!cut.uncertain).then_some(cut.length_bound);
        let indexes = self.indexes(term, &file, cut.size, bound).await?;
        let steps = indexes.into_iter().filter_map(|index| file.cut(index, cut.size)).collect();
        Ok(Cut { chunk_size: file.chunk_size(), steps })
    }

    /// Removes all chunks of an inode that nobody can reach any more. Its number is never used
    /// again, so this harms nobody however late a step comes.
    pub(super) async fn remove(&self, term: &Term, orphan: &pb::Orphan) -> Result<(), Status> {
        let Some(layout) = &orphan.layout else { return Ok(()) };
        let file = FileChunks::new(&self.routing.get(), orphan.inode, layout)?;
        let bound = (!orphan.uncertain).then_some(orphan.size);
        let indexes = self.indexes(term, &file, 0, bound).await?;
        let steps = indexes.into_iter().map(|index| file.remove(index)).collect();
        let cut = Cut { chunk_size: file.chunk_size(), steps };
        for steps in cut.batches() {
            self.perform(term, &cut, steps, Instant::now() + limits::CHUNK_CALL).await?;
        }
        Ok(())
    }

    /// Writes the bytes of an inline file to its first chunk.
    pub(super) async fn spill(
        &self,
        term: &Term,
        truncation: &pb::Truncation,
        deadline: Instant,
    ) -> Result<(), Status> {
        let layout = truncation.layout.unwrap_or_default();
        let file = FileChunks::new(&self.routing.get(), truncation.inode, &layout)?;
        let (chain, chunk) = file.first();
        term.check()?;
        let update = ChunkUpdate {
            chain,
            chunk,
            kind: UpdateKind::Write,
            offset: 0,
            payload: SharedBuf::from(truncation.spill.clone()),
            chunk_size: file.chunk_size(),
            grant: Bytes::new(),
        };
        self.client.update(&update, deadline).await?;
        Ok(())
    }

    /// How long the chains say that a file is; at least what is known.
    pub(super) async fn length(&self, term: &Term, doubt: &pb::LengthDoubt) -> Result<u64, Status> {
        let Some(layout) = &doubt.layout else { return Ok(doubt.size) };
        let file = FileChunks::new(&self.routing.get(), doubt.inode, layout)?;
        let from = u32::try_from(file.above(doubt.size, 0).start).unwrap_or(u32::MAX);
        let chunks = self.list(term, &file, from).await?;
        let longest = chunks.iter().map(|chunk| file.end(chunk)).max();
        Ok(longest.unwrap_or(0).max(doubt.size))
    }

    /// The chunks that may have bytes at or above `size`. `bound` is above all chunks, if that is known.
    async fn indexes(
        &self,
        term: &Term,
        file: &FileChunks,
        size: u64,
        bound: Option<u64>,
    ) -> Result<Vec<u32>, Status> {
        let chunks = file.above(size, bound.unwrap_or(u64::MAX));
        if FileChunks::are_few(&chunks) {
            return Ok(chunks.filter_map(|index| u32::try_from(index).ok()).collect());
        }
        let from = u32::try_from(chunks.start).unwrap_or(u32::MAX);
        let listed = self.list(term, file, from).await?;
        Ok(listed.iter().filter_map(|chunk| Some(chunk.chunk.as_ref()?.index)).collect())
    }

    /// Makes these steps of a cut; none of them later than `deadline`. Fails at the first chunk that
    /// cannot be cut now.
    pub(super) async fn perform(
        &self,
        term: &Term,
        cut: &Cut,
        steps: &[Step],
        deadline: Instant,
    ) -> Result<(), Status> {
        // Copied: a closure that takes borrowed steps makes a future that tokio does not take.
        let steps = steps.iter().copied();
        stream::iter(steps.map(|step| self.step(term, step, cut.chunk_size, deadline)))
            .buffer_unordered(limits::CHUNK_CALLS)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    async fn step(
        &self,
        term: &Term,
        step: Step,
        chunk_size: u32,
        deadline: Instant,
    ) -> Result<(), Status> {
        term.check()?;
        let (chain, chunk, kind, offset) = match step {
            Step::Truncate { chain, chunk, length } => (chain, chunk, UpdateKind::Truncate, length),
            Step::Remove { chain, chunk } => (chain, chunk, UpdateKind::Remove, 0),
        };
        let update = ChunkUpdate {
            chain,
            chunk,
            kind,
            offset,
            payload: SharedBuf::from(Bytes::new()),
            chunk_size,
            grant: Bytes::new(),
        };
        self.client.update(&update, deadline).await?;
        Ok(())
    }

    /// All chunks of a file from an index on.
    async fn list(
        &self,
        term: &Term,
        file: &FileChunks,
        from: u32,
    ) -> Result<Vec<pb::ChunkInfo>, Status> {
        let chains = file.chains().iter().copied();
        let pages: Vec<Vec<pb::ChunkInfo>> =
            stream::iter(chains.map(|chain| self.list_chain(term, file, chain, from)))
                .buffer_unordered(limits::CHUNK_CALLS)
                .try_collect()
                .await?;
        Ok(pages.concat())
    }

    async fn list_chain(
        &self,
        term: &Term,
        file: &FileChunks,
        chain: ChainId,
        from: u32,
    ) -> Result<Vec<pb::ChunkInfo>, Status> {
        let mut chunks = Vec::new();
        let mut from = from;
        loop {
            term.check()?;
            let deadline = Instant::now() + limits::CHUNK_CALL;
            let page = self
                .client
                .list_chunks(chain, file.inode(), from, limits::CHUNK_PAGE, Bytes::new(), deadline)
                .await?;
            let last = page.chunks.last().and_then(|chunk| Some(chunk.chunk.as_ref()?.index));
            chunks.extend(page.chunks);
            match last.and_then(|last| last.checked_add(1)) {
                Some(next) if !page.end => from = next,
                _ => return Ok(chunks),
            }
        }
    }
}
