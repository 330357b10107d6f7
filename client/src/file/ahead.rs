//! What was read ahead for one handle: fetched in the background, shown only while it is fresh.
//!
//! A piece is void once this client changed the file, or after the cache time: reading ahead must
//! not show a reader older bytes than the kernel's page cache would. It asks the chains, so nothing is
//! read ahead while writes are on their way to them.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Instant};

use ff2_client_core::Prefetch;
use ff2_fabric::SharedBuf;
use tokio::sync::watch;

use super::{File, read::join};
use crate::{
    client::{BUDGET_UNIT, Shared},
    inodes::OpenInode,
    limits,
};

#[derive(Debug, Default)]
pub(super) struct Ahead {
    plan: Prefetch,
    /// By their first byte; they do not overlap.
    pieces: BTreeMap<u64, Piece>,
}

#[derive(Clone, Debug)]
struct Piece {
    end: u64,
    begun: Instant,
    epoch: u64,
    fetched: watch::Receiver<Fetched>,
}

/// A piece on its way, here, or not to be had (the reader then asks itself).
#[derive(Clone, Debug)]
enum Fetched {
    Waiting,
    Here(SharedBuf),
    Failed,
}

impl File {
    /// Notes a read and starts to fetch what will follow it.
    pub(super) fn plan_ahead(&self, range: &Range<u64>, size: u64) {
        let cache = self.shared().options.cache;
        if cache.is_zero() {
            return;
        }
        let epoch = self.inode.epoch();
        let mut begun = Vec::new();
        {
            let mut ahead = self.ahead.lock();
            let wanted = ahead.plan.on_read(range.start, range.end - range.start, size);
            let passed = ahead.plan.passed();
            let fresh = |piece: &Piece| piece.epoch == epoch && piece.begun.elapsed() < cache;
            let before = ahead.pieces.len();
            ahead.pieces.retain(|_, piece| piece.end > passed && fresh(piece));
            if before > 0 && ahead.pieces.is_empty() {
                // Everything aged before it was read: the reader is slow, begin small again.
                ahead.plan.reset();
            }
            // After the epoch: what is accepted between the two looks voids the pieces.
            if self.inode.behind.end() > 0 {
                wanted.iter().for_each(|wanted| ahead.plan.gave_up(wanted.offset));
            } else if let Some(wanted) = wanted {
                for range in cut(wanted.offset..wanted.end()) {
                    let Some(permit) = self.ahead_permit(&range) else {
                        ahead.plan.gave_up(range.start);
                        break;
                    };
                    let (sender, fetched) = watch::channel(Fetched::Waiting);
                    let piece = Piece { end: range.end, begun: Instant::now(), epoch, fetched };
                    ahead.pieces.insert(range.start, piece);
                    begun.push((range, sender, permit));
                }
            }
        }
        if !begun.is_empty() {
            self.fetch_ahead(begun);
        }
    }

    /// Bytes at the start of `range` that were read ahead, or where the next such piece begins.
    pub(super) async fn read_ahead(&self, range: &Range<u64>) -> Result<SharedBuf, u64> {
        let (start, mut piece) = {
            let ahead = self.ahead.lock();
            let Some((start, piece)) = ahead.pieces.range(..=range.start).next_back() else {
                return Err(ahead.next_after(range.start));
            };
            let fresh = piece.epoch == self.inode.epoch()
                && piece.begun.elapsed() < self.shared().options.cache;
            if piece.end <= range.start || !fresh {
                return Err(ahead.next_after(range.start));
            }
            (*start, piece.clone())
        };
        let arrived = piece.fetched.wait_for(|fetched| !matches!(fetched, Fetched::Waiting)).await;
        let bytes = match arrived.as_deref() {
            Ok(Fetched::Here(bytes)) => bytes.clone(),
            // The fetch failed or was given up: the reader asks for this piece itself.
            Ok(Fetched::Failed | Fetched::Waiting) | Err(_) => return Err(piece.end),
        };
        let from = (range.start - start) as usize;
        let until = (range.end.min(piece.end) - start) as usize;
        Ok(bytes.slice(from..until))
    }

    fn ahead_permit(&self, range: &Range<u64>) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let units = u32::try_from((range.end - range.start).div_ceil(BUDGET_UNIT)).ok()?;
        // No budget, no read-ahead: readers that asked come first.
        self.shared().ahead_budget.clone().try_acquire_many_owned(units).ok()
    }

    fn fetch_ahead(&self, begun: Vec<Begun>) {
        let fetching =
            Arc::new(Fetching { shared: self.shared().clone(), inode: self.inode.clone() });
        for (range, sender, permit) in begun {
            let fetching = fetching.clone();
            tokio::spawn(async move {
                let fetched = match fetching.fetch(range).await {
                    Some(bytes) => Fetched::Here(bytes),
                    None => Fetched::Failed,
                };
                sender.send_replace(fetched);
                // The budget is taken until the last reader of the piece is gone. A piece that
                // nobody reads in time is void anyhow: its memory must not wait for the handle.
                let cache = fetching.shared.options.cache;
                if tokio::time::timeout(cache, sender.closed()).await.is_err() {
                    sender.send_replace(Fetched::Failed);
                }
                drop(permit);
            });
        }
    }
}

type Begun = (Range<u64>, watch::Sender<Fetched>, tokio::sync::OwnedSemaphorePermit);

/// What a background fetch needs of its file, without keeping the file open.
struct Fetching {
    shared: Arc<Shared>,
    inode: Arc<OpenInode>,
}

impl Fetching {
    async fn fetch(&self, range: Range<u64>) -> Option<SharedBuf> {
        let (layout, chains) = self.inode.layout();
        let length = range.end - range.start;
        let spans = self.inode.read_spans(&layout, &chains, range.start, length);
        let grant = self.inode.read_grant();
        let shared = &self.shared;
        let read = shared.chains.read(&spans, &grant, shared.deadline()).await;
        match read {
            Ok(mut pieces) if pieces.len() == 1 => Some(pieces.swap_remove(0).bytes),
            Ok(pieces) => {
                let pieces: Vec<_> = pieces.into_iter().map(|piece| piece.bytes).collect();
                Some(join(&shared.pool, &pieces))
            }
            Err(failure) => {
                tracing::debug!(inode = %self.inode.id, %failure, "read-ahead failed");
                None
            }
        }
    }
}

impl Ahead {
    fn next_after(&self, offset: u64) -> u64 {
        self.pieces.range(offset + 1..).next().map_or(u64::MAX, |(start, _)| *start)
    }
}

/// Cuts at multiples of the piece size: pieces then lie in one chunk each.
fn cut(range: Range<u64>) -> Vec<Range<u64>> {
    let mut pieces = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let end = ((at / limits::AHEAD_PIECE + 1) * limits::AHEAD_PIECE).min(range.end);
        pieces.push(at..end);
        at = end;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_between_multiples_of_their_size() {
        const M: u64 = limits::AHEAD_PIECE;
        let pieces: Vec<_> = cut(M / 2..3 * M + 7);
        assert_eq!(pieces, [M / 2..M, M..2 * M, 2 * M..3 * M, 3 * M..3 * M + 7]);
        assert!(cut(5..5).is_empty());
    }
}
