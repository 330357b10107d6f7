//! Writing behind: a write returns when its bytes are gathered here, and fsync or close wait for the
//! chains. See `inodes/behind.rs` for what is gathered.

use std::{
    ops::Range,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use ff2_client_core::write_spans;
use ff2_proto::{InodeId, Retry, limits::FILE_SIZE_MAX, pb};
use futures::{StreamExt, stream::FuturesUnordered};

use super::File;
use crate::{
    Result,
    client::{BUDGET_UNIT, Shared},
    inodes::{OpenInode, Part, Piece, Place},
    limits,
    turn::Turn,
};

/// Pieces of one inode that are on their way together.
const FLYING_MAX: usize = 16;

impl File {
    /// Takes a write in if that needs nobody: then it is as durable as its file is closed or synced,
    /// and a failure is told there. False: nothing was done, or not all; write it as
    /// [`File::write_buf_exact`] does. Not for a file that is opened to append.
    pub fn write_behind(&self, offset: u64, bytes: &[u8]) -> bool {
        let shared = self.shared();
        let is_plain = self.how.write && !self.how.append && !bytes.is_empty();
        let end = offset.checked_add(bytes.len() as u64);
        let fits = end.is_some_and(|end| end <= FILE_SIZE_MAX);
        if !is_plain || !fits || self.inode.check_alive().is_err() {
            return false;
        }
        let Ok(_with_others) = self.inode.gate.try_read() else { return false };
        let is_registered = self.inode.registered(shared.session.id()) > 0;
        let has_room = end.is_some_and(|end| end <= self.inode.grow_to());
        if !is_registered || !has_room || self.inode.place() != Place::Chunks {
            return false;
        }
        shared.accept(&self.inode, &self.caller.cred, offset, bytes)
    }

    /// As [`File::write_behind`], waiting for room a while.
    pub async fn write_behind_soon(&self, offset: u64, bytes: &[u8]) -> bool {
        let budget = &self.shared().behind_budget;
        let units = u32::try_from(bytes.len() as u64 / BUDGET_UNIT + 1).unwrap_or(u32::MAX);
        for _ in 0..4 {
            if self.write_behind(offset, bytes) {
                return true;
            }
            let room = budget.acquire_many(units.min(self.shared().behind_units));
            if tokio::time::timeout(limits::BEHIND_WAIT, room).await.is_err() {
                return false;
            }
        }
        false
    }

    /// Waits for all that was taken in, and tells a failure that this file did not tell yet.
    pub(super) async fn settle(&self) -> Result<()> {
        self.shared().settle(&self.inode, |_| true).await;
        let seen = self.seen_failures.load(Relaxed);
        match self.inode.behind.failed_since(seen) {
            Some((now, failure)) => {
                self.seen_failures.store(now, Relaxed);
                Err(failure)
            }
            None => Ok(()),
        }
    }
}

impl Shared {
    fn accept(
        self: &Arc<Self>,
        open: &Arc<OpenInode>,
        cred: &pb::Credentials,
        offset: u64,
        bytes: &[u8],
    ) -> bool {
        let (layout, chains) = open.layout();
        let spans = write_spans(open.id, &layout, &chains, offset, bytes.len() as u64);
        let mut accepted = true;
        for span in spans {
            let part = Part {
                chunk: span.chunk.index,
                start: span.offset,
                chunk_size: layout.chunk_size,
                offset: offset + span.payload_offset as u64,
                bytes: &bytes[span.payload_offset..span.payload_offset + span.length as usize],
            };
            let room = |bytes: usize| {
                let units = u32::try_from((bytes as u64).div_ceil(BUDGET_UNIT)).ok()?;
                let permit = self.behind_budget.clone().try_acquire_many_owned(units).ok()?;
                Some((self.pool.try_get(bytes)?, permit))
            };
            accepted = accepted && open.behind.accept(part, cred, room);
        }
        open.content_written();
        self.serve_behind(open);
        accepted
    }

    /// Sends what is to be sent, if nobody does.
    fn serve_behind(self: &Arc<Self>, open: &Arc<OpenInode>) {
        if !open.behind.must_serve() {
            return;
        }
        let (shared, open) = (self.clone(), open.clone());
        self.runtime.spawn(async move {
            let mut flying = FuturesUnordered::new();
            while let Some(piece) = open.behind.take() {
                // The turn is taken in the order of the queue, whichever piece comes to its chain first.
                let chunk = [piece.chunk];
                let mut entering = pin!(open.turns.enter(&chunk));
                let turns = loop {
                    tokio::select! {
                        biased;
                        turns = &mut entering => break turns,
                        // Who holds the turns that are waited for must go on meanwhile.
                        Some(()) = flying.next(), if !flying.is_empty() => {}
                    }
                };
                let turn = turns.into_iter().next().expect("one turn for one chunk");
                flying.push(shared.send_piece(&open, turn, piece));
                while flying.len() >= FLYING_MAX {
                    flying.next().await;
                }
            }
            while flying.next().await.is_some() {}
        });
    }

    async fn send_piece(self: &Arc<Self>, open: &Arc<OpenInode>, turn: Turn<'_>, piece: Piece) {
        let (layout, chains) = open.layout();
        let at = u64::from(piece.chunk) * u64::from(layout.chunk_size) + u64::from(piece.start);
        let Piece { number, buf, cred, room, .. } = piece;
        let end = at + buf.len() as u64;
        let spans = write_spans(open.id, &layout, &chains, at, buf.len() as u64);
        let update = super::write::update(&spans[0], &layout, buf.freeze());
        let outcome = self.update_chunk(open, &cred, turn, update).await;
        match &outcome {
            Ok(()) => self.inodes.wrote(open, end),
            Err(failure) => {
                tracing::warn!(inode = %open.id, %failure, "a write behind failed");
                if failure.retry() != Retry::Never {
                    self.inodes.attempted(open, end);
                }
            }
        }
        drop(room);
        open.behind.landed(number, outcome);
    }

    /// Returns when what was taken in before, of the chunks that `which` chooses, is on its way no more.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        open: &Arc<OpenInode>,
        which: impl Fn(u32) -> bool + Send,
    ) {
        let last = open.behind.send_off(&which);
        self.serve_behind(open);
        loop {
            let ended = open.behind.ended.notified();
            if !open.behind.is_pending(&which, last) {
                return;
            }
            ended.await;
        }
    }

    /// As [`Self::settle`], of the chunks of a range of bytes.
    pub(crate) async fn settle_range(self: &Arc<Self>, open: &Arc<OpenInode>, range: &Range<u64>) {
        if open.behind.end() == 0 {
            return;
        }
        let chunk_size = u64::from(open.layout().0.chunk_size.max(1));
        let (first, last) = (range.start / chunk_size, range.end.saturating_sub(1) / chunk_size);
        self.settle(open, |chunk| (first..=last).contains(&u64::from(chunk))).await;
    }

    /// Of an inode that may not be open here.
    pub(crate) async fn settle_inode(self: &Arc<Self>, inode: InodeId) {
        if let Some(open) = self.inodes.get(inode) {
            self.settle(&open, |_| true).await;
        }
    }
}
