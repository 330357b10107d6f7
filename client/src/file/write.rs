//! Writes: those to chunks go through to every replica before they return.

use std::sync::Arc;

use bytes::Bytes;
use ff2_client_core::{WriteSpan, write_spans};
use ff2_fabric::{SharedBuf, chain::ChunkUpdate};
use ff2_proto::{Code, Retry, Status, limits::FILE_SIZE_MAX, pb, pb::UpdateKind};
use futures::future::join_all;

use super::File;
use crate::{Result, client::Shared, inodes::OpenInode, limits, turn::Turn};

impl File {
    /// Writes all bytes at an offset (at the end, for a file opened to append) and returns how many
    /// were written: all, or those before the first chunk that failed.
    ///
    /// The bytes are copied once, into a registered buffer; [`File::write_buf`] spares that.
    pub async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        let mut written = 0;
        for piece in bytes.chunks(limits::WRITE_BYTES_MAX) {
            let buffer = self.shared().pool.get(piece.len());
            let deadline = self.shared().deadline().into();
            let Ok(mut buffer) = tokio::time::timeout_at(deadline, buffer).await else {
                let detail = "all buffers of this client are in use: drop results of earlier reads";
                return Err(Status::new(Code::Busy, detail));
            };
            buffer.copy_from_slice(piece);
            let count = self.write_buf(offset + written as u64, buffer.freeze()).await?;
            written += count;
            if count < piece.len() {
                break;
            }
        }
        Ok(written)
    }

    /// As [`File::write_at`], without a copy. At most [`limits::WRITE_BYTES_MAX`] bytes are taken.
    pub async fn write_buf(&self, offset: u64, bytes: SharedBuf) -> Result<usize> {
        if self.how.append {
            self.append_buf(bytes).await
        } else {
            self.write_buf_exact(offset, bytes).await
        }
    }

    /// As [`File::write_buf`], at the offset also for a file that was opened to append: for bytes
    /// that have their place already, as those of a mapped page.
    pub async fn write_buf_exact(&self, offset: u64, bytes: SharedBuf) -> Result<usize> {
        self.check_writable()?;
        self.inode.check_alive()?;
        let _with_others = self.inode.gate.read().await;
        self.write_gated(offset, bytes).await
    }

    /// With the gate held.
    pub(super) async fn write_gated(&self, offset: u64, bytes: SharedBuf) -> Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let bytes = bytes.slice(0..bytes.len().min(limits::WRITE_BYTES_MAX));
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= FILE_SIZE_MAX);
        if end.is_none() {
            return Err(Status::new(Code::FileTooBig, "the write ends above the largest file"));
        }
        self.register().await?;
        let (shared, cred) = (self.shared(), &self.caller.cred);
        let fits = shared.make_room(&self.inode, cred, offset, bytes.len() as u64).await?;
        let bytes = bytes.slice(0..fits as usize);
        if shared.write_inline(&self.inode, cred, offset, &bytes).await? {
            return Ok(bytes.len());
        }
        shared.write_chunks(&self.inode, cred, offset, bytes).await
    }
}

impl Shared {
    /// Writes to the chains of a file that is registered as written, and counts as [`File::write_at`].
    pub(super) async fn write_chunks(
        self: &Arc<Self>,
        inode: &Arc<OpenInode>,
        cred: &pb::Credentials,
        offset: u64,
        bytes: SharedBuf,
    ) -> Result<usize> {
        self.settle_range(inode, &(offset..offset + bytes.len() as u64)).await;
        let (layout, chains) = inode.layout();
        let spans = write_spans(inode.id, &layout, &chains, offset, bytes.len() as u64);
        let chunks: Vec<u32> = spans.iter().map(|span| span.chunk.index).collect();
        let turns = inode.turns.enter(&chunks).await;
        let updates = spans.iter().zip(turns).map(|(span, turn)| {
            let payload_end = span.payload_offset + span.length as usize;
            let payload = bytes.slice(span.payload_offset..payload_end);
            let update = update(span, &layout, payload);
            self.update_chunk(inode, cred, turn, update)
        });
        let outcomes = join_all(updates).await;
        self.take_outcomes(inode, offset, &spans, outcomes)
    }

    /// Counts the bytes before the first chunk that failed. What came of the chunks behind it is
    /// part of the file as well, whatever the caller does next: bytes that the namespace does not
    /// know of would be found by no removal, and come to light when the file grows.
    fn take_outcomes(
        &self,
        inode: &OpenInode,
        offset: u64,
        spans: &[WriteSpan],
        outcomes: Vec<Result<()>>,
    ) -> Result<usize> {
        let (mut written, mut reached, mut attempted) = (0, 0, 0);
        let mut failed = None;
        for (span, outcome) in spans.iter().zip(outcomes) {
            let end = offset + span.payload_offset as u64 + u64::from(span.length);
            match outcome {
                Ok(()) => {
                    reached = end;
                    written += if failed.is_none() { span.length as usize } else { 0 };
                }
                Err(failure) => {
                    // Worth another try, had there been time: the answer is not known.
                    if failure.retry() != Retry::Never {
                        attempted = end;
                    }
                    failed.get_or_insert((span.chunk, failure));
                }
            }
        }
        if reached > 0 {
            self.inodes.wrote(inode, reached);
        }
        if attempted > 0 {
            self.inodes.attempted(inode, attempted);
        }
        match failed {
            Some((_, failure)) if written == 0 => Err(failure),
            // A short count now; the caller meets the failure when it writes the rest.
            Some((chunk, failure)) => {
                tracing::debug!(%chunk, %failure, "a write was cut short");
                Ok(written)
            }
            None => Ok(written),
        }
    }

    pub(super) async fn update_chunk(
        self: &Arc<Self>,
        inode: &Arc<OpenInode>,
        cred: &pb::Credentials,
        mut turn: Turn<'_>,
        mut update: ChunkUpdate,
    ) -> Result<()> {
        turn.come().await;
        let _share = self.update_shares.take(update.chain, 1).await;
        let deadline = self.deadline();
        for _ in 0..limits::GRANT_RENEWALS_MAX {
            update.grant = inode.write_grant();
            match self.chains.update(&update, deadline).await {
                Err(failure) if failure.code == Code::GrantExpired => {
                    let handles = inode.reopen_op().unwrap_or_default();
                    let op = pb::OpenOp { inode: inode.id.0, write: true, ..handles };
                    self.renew_grant(inode, cred, op).await?;
                }
                outcome => return outcome.map(drop),
            }
        }
        Err(Status::new(Code::GrantExpired, "each new grant expired at once"))
    }
}

/// The write of a span's bytes; its grant is added when it is sent.
pub(super) fn update(span: &WriteSpan, layout: &pb::Layout, payload: SharedBuf) -> ChunkUpdate {
    ChunkUpdate {
        chain: span.chain,
        chunk: span.chunk,
        kind: UpdateKind::Write,
        offset: span.offset,
        payload,
        chunk_size: layout.chunk_size,
        grant: Bytes::new(),
    }
}
