//! Reads: straight from the replicas, or from what was read ahead.

use std::{collections::BTreeMap, mem, ops::Range, sync::Arc};

use ff2_client_core::ReadSpan;
use ff2_fabric::{
    BufPool, SharedBuf,
    chain::{Came, ReadPiece},
};
use ff2_proto::{Code, Status};
use tokio::sync::OwnedSemaphorePermit;

use super::File;
use crate::{
    Result,
    client::{BUDGET_UNIT, Shared},
    limits,
};

impl File {
    /// Reads up to `length` bytes (at most [`limits::READ_BYTES_MAX`]); fewer only at the end of the
    /// file. Without a copy where the bytes lie in one chunk.
    pub async fn read_at(&self, offset: u64, length: u64) -> Result<SharedBuf> {
        let mut pieces = self.read_pieces(offset, length).await?;
        if pieces.len() == 1 {
            return Ok(pieces.swap_remove(0));
        }
        Ok(join(&self.shared().pool, &pieces))
    }

    /// Fills the caller's buffer; fewer bytes than it has only at the end of the file.
    pub async fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let left = (buffer.len() - filled) as u64;
            let pieces = self.read_pieces(offset + filled as u64, left).await?;
            let before = filled;
            for piece in &pieces {
                buffer[filled..filled + piece.len()].copy_from_slice(piece);
                filled += piece.len();
            }
            if filled == before {
                break;
            }
        }
        Ok(filled)
    }

    /// The bytes as they came, in order: for who can send several buffers at once.
    pub async fn read_pieces(&self, offset: u64, length: u64) -> Result<Vec<SharedBuf>> {
        self.read_pieces_into(None, offset, length).await
    }

    /// As [`File::read_pieces`], into a buffer of this pool where the bytes come in one piece from one
    /// server. The pool must have room for `length` bytes, and somebody else's buffers of it must come
    /// back by themselves.
    pub async fn read_pieces_into(
        &self,
        room: Option<&Arc<BufPool>>,
        offset: u64,
        length: u64,
    ) -> Result<Vec<SharedBuf>> {
        if !self.how.read && !self.how.execute {
            return Err(Status::new(Code::BadHandle, "the file is not open for reading"));
        }
        self.inode.check_alive()?;
        let wanted = offset..offset.saturating_add(length.min(limits::READ_BYTES_MAX));
        let size = self.size_for(wanted.end).await?;
        let range = wanted.start..wanted.end.min(size);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.accessed();
        if let Some(bytes) = self.read_inline(&range).await? {
            return Ok(vec![bytes]);
        }
        self.plan_ahead(&range, size);
        self.read_range(room, range).await
    }

    /// Several ranges at once, with one call for each server that has some of them; each as by
    /// [`File::read_pieces`], of any length. Nothing is read ahead. All of them fail together, and wait for
    /// each other.
    pub async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Vec<SharedBuf>>> {
        let mut found = vec![Vec::new(); ranges.len()];
        self.read_ranges_each(ranges, &mut |place, pieces| found[place] = pieces).await?;
        Ok(found)
    }

    /// As [`File::read_ranges`], and each range's bytes are given away when they are there, with its place: none
    /// waits for another one's server. If it fails some may have been given.
    pub async fn read_ranges_each(
        &self,
        ranges: &[Range<u64>],
        found: &mut (dyn FnMut(usize, Vec<SharedBuf>) + Send),
    ) -> Result<()> {
        if !self.how.read && !self.how.execute {
            return Err(Status::new(Code::BadHandle, "the file is not open for reading"));
        }
        self.inode.check_alive()?;
        let end = ranges.iter().map(|range| range.end).max().unwrap_or_default();
        let size = self.size_for(end).await?;
        self.accessed();
        let mut in_chunks = Vec::new();
        for (place, range) in ranges.iter().enumerate() {
            let range = range.start..range.end.min(size);
            if range.is_empty() {
                found(place, Vec::new());
            } else if let Some(bytes) = self.read_inline(&range).await? {
                found(place, vec![bytes]);
            } else {
                self.shared().settle_range(&self.inode, &range).await;
                in_chunks.push((place, range));
            }
        }
        let (layout, chains) = self.inode.layout();
        let mut spans = Vec::new();
        let mut gathered: Vec<Vec<Option<SharedBuf>>> = vec![Vec::new(); ranges.len()];
        let mut places = Vec::new();
        for (place, range) in in_chunks {
            let length = range.end - range.start;
            let own = self.inode.read_spans(&layout, &chains, range.start, length);
            gathered[place] = vec![None; own.len()];
            places.extend((0..own.len()).map(|nth| (place, nth)));
            spans.extend(own);
        }
        if spans.is_empty() {
            return Ok(());
        }
        let mut came = |span: usize, piece: ReadPiece| {
            let (place, nth) = places[span];
            let pieces = &mut gathered[place];
            pieces[nth] = Some(piece.bytes);
            if pieces.iter().all(Option::is_some) {
                found(place, mem::take(pieces).into_iter().flatten().collect());
            }
        };
        self.read_spans(&self.shared().pool, &spans, &mut came).await
    }

    /// The file's size. If it is not certain that what is known is fresh the namespace is asked; if only
    /// its age is known, not for a read that ends within.
    async fn size_for(&self, end: u64) -> Result<u64> {
        let shared = self.shared();
        let is_fresh = shared.is_fresh(&self.inode.attr());
        let size = shared.inodes.size(&self.inode);
        if is_fresh || (end <= size && !shared.has_callbacks()) {
            return Ok(size);
        }
        Ok(self.caller.get_attr(self.inode.id).await?.size)
    }

    /// Reads within the file: what was read ahead, and the gaps from the chains.
    async fn read_range(
        &self,
        room: Option<&Arc<BufPool>>,
        range: Range<u64>,
    ) -> Result<Vec<SharedBuf>> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let rest = at..range.end;
            let found = self.read_ahead(&rest).await;
            let gap_end = match found {
                Ok(piece) => {
                    at += piece.len() as u64;
                    pieces.push(piece);
                    continue;
                }
                Err(next_piece) => next_piece.min(range.end),
            };
            let is_whole = (at..gap_end) == range;
            let room = room.filter(|_| is_whole);
            pieces.extend(self.read_chains(room, at..gap_end).await?);
            at = gap_end;
        }
        Ok(pieces)
    }

    async fn read_chains(
        &self,
        room: Option<&Arc<BufPool>>,
        range: Range<u64>,
    ) -> Result<Vec<SharedBuf>> {
        let shared = self.shared();
        shared.settle_range(&self.inode, &range).await;
        let (layout, chains) = self.inode.layout();
        let length = range.end - range.start;
        let spans = self.inode.read_spans(&layout, &chains, range.start, length);
        // Of several pieces, each with a buffer of its own, some might find no room.
        let pool = room.filter(|_| spans.len() == 1).unwrap_or(&shared.pool);
        let mut pieces = vec![None; spans.len()];
        let mut came = |place: usize, piece: ReadPiece| pieces[place] = Some(piece.bytes);
        self.read_spans(pool, &spans, &mut came).await?;
        Ok(pieces.into_iter().flatten().collect())
    }

    /// The bytes of spans within the file, one piece for each.
    async fn read_spans(
        &self,
        pool: &Arc<BufPool>,
        spans: &[ReadSpan],
        came: Came<'_>,
    ) -> Result<()> {
        let shared = self.shared();
        let _budget = take_budget(shared, spans).await;
        let deadline = shared.deadline();
        let mut missing: Vec<usize> = (0..spans.len()).collect();
        // A grant is renewed as needed.
        for _ in 0..limits::GRANT_RENEWALS_MAX {
            let grant = self.inode.read_grant();
            let asked: Vec<ReadSpan> = missing.iter().map(|place| spans[*place]).collect();
            let mut is_there = vec![false; asked.len()];
            let mut came = |place: usize, piece| {
                is_there[place] = true;
                came(missing[place], piece);
            };
            match shared.chains.read_each(pool, &asked, &grant, deadline, &mut came).await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.code == Code::GrantExpired => self.renew_grant().await?,
                Err(failure) => return Err(failure),
            }
            let mut is_there = is_there.into_iter();
            missing.retain(|_| is_there.next() == Some(false));
        }
        Err(Status::new(Code::GrantExpired, "each new grant expired at once"))
    }
}

/// Several pieces as one. Who holds pieces of the pool must not wait for more of it: when it is empty
/// the copy goes to ordinary memory.
pub(super) fn join(pool: &Arc<BufPool>, pieces: &[SharedBuf]) -> SharedBuf {
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let Some(mut whole) = pool.try_get(total) else {
        let mut whole = Vec::with_capacity(total);
        pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        return SharedBuf::from(whole);
    };
    let mut at = 0;
    for piece in pieces {
        whole[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    whole.freeze()
}

/// Permits for the bytes of a read: of each chain's share, in the order of the chains so that no two
/// reads wait for each other, and then of the whole. A read above a bound takes all of it.
async fn take_budget(shared: &Shared, spans: &[ReadSpan]) -> Vec<OwnedSemaphorePermit> {
    let mut by_chain = BTreeMap::new();
    for span in spans {
        *by_chain.entry(span.chain).or_insert(0) += u64::from(span.length);
    }
    let units = |bytes: u64| u32::try_from(bytes.div_ceil(BUDGET_UNIT)).unwrap_or(u32::MAX);
    let whole = units(by_chain.values().sum()).min(shared.read_units);
    let mut permits = Vec::with_capacity(by_chain.len() + 1);
    for (chain, bytes) in by_chain {
        permits.push(shared.read_shares.take(chain, units(bytes)).await);
    }
    let budget = shared.read_budget.clone().acquire_many_owned(whole).await;
    permits.push(budget.expect("the semaphore is never closed"));
    permits
}
