//! From a written range to chunk updates, and which of them may run at the same time.
//!
//! Updates of one chunk go one after the other, in the order in which their writes were made: an
//! overlapping later write then wins, and the chain never sees two updates of one client for one
//! chunk at once. Updates of different chunks run side by side.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ff2_proto::{ChainId, ChunkId, InodeId, layout, pb};

use crate::limits;

/// A part of a write that goes to one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteSpan {
    pub chain: ChainId,
    pub chunk: ChunkId,
    /// First byte in the chunk.
    pub offset: u32,
    pub length: u32,
    /// First byte in the payload.
    pub payload_offset: usize,
}

/// Splits `[offset, offset + length)` at chunk borders. `chains` are the file's, from
/// [`layout::stripe_chains`].
pub fn write_spans(
    inode: InodeId,
    layout: &pb::Layout,
    chains: &[ChainId],
    offset: u64,
    length: u64,
) -> Vec<WriteSpan> {
    layout::split(inode, layout, chains.len(), offset, length)
        .into_iter()
        .map(|span| WriteSpan {
            chain: chains[span.stripe_place],
            chunk: span.chunk,
            offset: span.offset,
            length: span.length,
            payload_offset: span.buffer_offset as usize,
        })
        .collect()
}

/// Names one update in its inode's order.
pub type Ticket = u64;

/// The order of one inode's updates.
#[derive(Clone, Debug, Default)]
pub struct WriteOrder {
    next: Ticket,
    /// Per chunk index: the update that runs, then those that wait.
    queues: BTreeMap<u32, VecDeque<Ticket>>,
    chunk_of: BTreeMap<Ticket, u32>,
}

/// A ticket, and whether its update may run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    pub ticket: Ticket,
    pub ready: bool,
}

impl WriteOrder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters the updates of one write, all at once so that two writes which share several chunks
    /// have one order on all of them. `None`: too many wait already.
    pub fn enter(&mut self, chunks: impl IntoIterator<Item = u32>) -> Option<Vec<Entered>> {
        if self.chunk_of.len() >= limits::INODE_WRITES_MAX {
            return None;
        }
        let mut entered = Vec::new();
        for chunk in chunks {
            let ticket = self.next;
            self.next += 1;
            let queue = self.queues.entry(chunk).or_default();
            queue.push_back(ticket);
            entered.push(Entered { ticket, ready: queue.len() == 1 });
            self.chunk_of.insert(ticket, chunk);
        }
        self.check();
        Some(entered)
    }

    /// An update ended, or was given up while it waited. Returns the ticket that may run now.
    pub fn leave(&mut self, ticket: Ticket) -> Option<Ticket> {
        let chunk = self.chunk_of.remove(&ticket)?;
        let queue = self.queues.get_mut(&chunk).expect("a ticket has a queue");
        let was_running = queue.front() == Some(&ticket);
        queue.retain(|waiting| *waiting != ticket);
        let next = queue.front().copied();
        if next.is_none() {
            self.queues.remove(&chunk);
        }
        self.check();
        next.filter(|_| was_running)
    }

    /// Nothing waits or runs.
    pub fn is_idle(&self) -> bool {
        self.chunk_of.is_empty()
    }

    fn check(&self) {
        if cfg!(debug_assertions) {
            let queued: BTreeSet<_> = self.queues.values().flatten().copied().collect();
            assert!(queued.iter().eq(self.chunk_of.keys()), "each ticket waits in one queue");
            assert!(self.queues.values().all(|queue| !queue.is_empty()));
            assert!(
                self.queues.values().all(|queue| queue.iter().is_sorted()),
                "first in, first out"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(entered: &[Entered]) -> Vec<bool> {
        entered.iter().map(|entered| entered.ready).collect()
    }

    #[test]
    fn chunks_run_side_by_side_and_one_chunk_in_order() {
        let mut order = WriteOrder::new();
        let first = order.enter([1, 2]).unwrap();
        let second = order.enter([2, 3]).unwrap();
        assert_eq!(ready(&first), [true, true]);
        assert_eq!(ready(&second), [false, true]);
        assert_eq!(order.leave(first[0].ticket), None);
        assert_eq!(order.leave(first[1].ticket), Some(second[0].ticket));
        assert_eq!(order.leave(second[0].ticket), None);
        assert_eq!(order.leave(second[1].ticket), None);
        assert!(order.is_idle());
    }

    #[test]
    fn one_that_gives_up_waiting_does_not_start_the_next() {
        let mut order = WriteOrder::new();
        let tickets: Vec<_> = (0..3).map(|_| order.enter([7]).unwrap()[0].ticket).collect();
        assert_eq!(order.leave(tickets[1]), None, "the first still runs");
        assert_eq!(order.leave(tickets[0]), Some(tickets[2]));
        assert_eq!(order.leave(tickets[0]), None, "leaving twice is harmless");
        assert_eq!(order.leave(tickets[2]), None);
    }

    #[test]
    fn waiting_writes_are_bounded() {
        let mut order = WriteOrder::new();
        for _ in 0..limits::INODE_WRITES_MAX {
            assert!(order.enter([1]).is_some());
        }
        assert!(order.enter([2]).is_none());
        order.leave(0);
        assert!(order.enter([2]).is_some());
    }

    #[test]
    fn spans_cut_the_payload_at_chunk_borders() {
        let layout = pb::Layout { chunk_size: 64 << 10, stripe: 2, ..Default::default() };
        let chains = [ChainId(3), ChainId(4)];
        let spans = write_spans(InodeId(1), &layout, &chains, (64 << 10) - 10, 30);
        assert_eq!(spans.len(), 2);
        assert_eq!((spans[0].chain, spans[0].length, spans[0].payload_offset), (ChainId(3), 10, 0));
        assert_eq!((spans[1].chain, spans[1].offset, spans[1].payload_offset), (ChainId(4), 0, 10));
    }
}
