//! Writes: through to every replica before they return.

use bytes::Bytes;
use ff2_client_core::{WriteSpan, write_spans};
use ff2_fabric::{SharedBuf, chain::ChunkUpdate};
use ff2_proto::{Code, Status, limits::FILE_SIZE_MAX, pb::UpdateKind};
use futures::future::join_all;

use super::File;
use crate::{Result, limits, turn::Turn};

impl File {
    /// Writes all bytes at an offset (at the end, for a file opened to append) and returns how many
    /// were written: all, or those before the first chunk that failed.
    ///
    /// The bytes are copied once, into a registered buffer; [`File::write_buf`] spares that.
    pub async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        let mut written = 0;
        for piece in bytes.chunks(limits::WRITE_BYTES_MAX) {
            let mut buffer = self.shared().pool.get(piece.len()).await;
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

    /// Writes at the end of the file.
    pub async fn append_buf(&self, bytes: SharedBuf) -> Result<usize> {
        self.check_writable()?;
        self.inode.check_alive()?;
        let _alone = self.inode.gate.write().await;
        let end = self.end_of_file().await?;
        self.write_gated(end, bytes).await
    }

    /// Where an append goes: at the end as everybody sees it now. Only who wrote last, and did not
    /// report it, needs not ask: nobody else knows where its bytes end.
    async fn end_of_file(&self) -> Result<u64> {
        let (_, age) = self.inode.attr();
        let inodes = &self.shared().inodes;
        if age >= self.shared().options.cache || !inodes.is_dirty(self.inode.id) {
            return Ok(self.caller.get_attr(self.inode.id).await?.size);
        }
        Ok(inodes.size(&self.inode))
    }

    /// With the gate held.
    async fn write_gated(&self, offset: u64, bytes: SharedBuf) -> Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let bytes = bytes.slice(0..bytes.len().min(limits::WRITE_BYTES_MAX));
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= FILE_SIZE_MAX);
        let Some(end) = end else {
            return Err(Status::new(Code::FileTooBig, "the write ends above the largest file"));
        };
        self.register().await?;
        let (layout, chains) = self.inode.layout();
        let spans = write_spans(self.inode.id, &layout, &chains, offset, bytes.len() as u64);
        let chunks: Vec<u32> = spans.iter().map(|span| span.chunk.index).collect();
        let turns = self.inode.turns.enter(&chunks).await;
        let updates = spans.iter().zip(turns).map(|(span, turn)| {
            let payload_end = span.payload_offset + span.length as usize;
            let payload = bytes.slice(span.payload_offset..payload_end);
            self.update_chunk(span, turn, payload, layout.chunk_size)
        });
        let outcomes = join_all(updates).await;
        let mut written = 0;
        for (span, outcome) in spans.iter().zip(outcomes) {
            match outcome {
                Ok(()) => written += span.length as usize,
                Err(failure) if written == 0 => return Err(failure),
                // A short count now; the caller meets the failure when it writes the rest.
                Err(failure) => {
                    tracing::debug!(chunk = %span.chunk, %failure, "a write was cut short");
                    break;
                }
            }
        }
        let reached = end - (bytes.len() - written) as u64;
        self.shared().inodes.wrote(&self.inode, reached);
        Ok(written)
    }

    async fn update_chunk(
        &self,
        span: &WriteSpan,
        mut turn: Turn<'_>,
        payload: SharedBuf,
        chunk_size: u32,
    ) -> Result<()> {
        turn.come().await;
        let _share = self.shared().update_shares.take(span.chain, 1).await;
        let deadline = self.shared().deadline();
        let mut update = ChunkUpdate {
            chain: span.chain,
            chunk: span.chunk,
            kind: UpdateKind::Write,
            offset: span.offset,
            payload,
            chunk_size,
            grant: Bytes::new(),
        };
        for _ in 0..limits::GRANT_RENEWALS_MAX {
            update.grant = self.inode.write_grant();
            match self.shared().chains.update(&update, deadline).await {
                Err(failure) if failure.code == Code::GrantExpired => self.renew_grant().await?,
                outcome => return outcome.map(drop),
            }
        }
        Err(Status::new(Code::GrantExpired, "each new grant expired at once"))
    }
}
