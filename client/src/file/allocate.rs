//! Ranges that shall exist, or be zeros.

use ff2_fabric::SharedBuf;
use ff2_proto::{Code, Status, limits as wire};

use super::File;
use crate::{Result, inodes::Place};

/// Looked at, and cleared, in steps of this many bytes.
const STEP: u64 = 1 << 20;

impl File {
    /// Makes the file at least `end` bytes long; what is new reads as zeros. Space is not set aside: a
    /// later write may still find the disks full.
    pub async fn extend_to(&self, end: u64) -> Result<()> {
        self.check_writable()?;
        if end > wire::FILE_SIZE_MAX {
            return Err(Status::new(Code::FileTooBig, "the file would be too long"));
        }
        if self.attr().await?.size >= end {
            return Ok(());
        }
        self.register().await?;
        let fits = end <= u64::from(wire::INLINE_BYTES_MAX);
        if self.inode.place() == Place::Namespace && fits {
            // At its place also for a file that is opened to append.
            return self.write_buf_exact(end - 1, SharedBuf::from(vec![0])).await.map(drop);
        }
        let shared = self.shared();
        {
            let _with_others = self.inode.gate.read().await;
            let size = shared.inodes.size(&self.inode);
            let more = end.saturating_sub(size);
            if shared.make_room(&self.inode, &self.caller.cred, size, more).await? < more {
                return Err(Code::QuotaExceeded.into());
            }
        }
        shared.leave_inline(&self.inode, &self.caller.cred).await?;
        // A length that grows cannot undo what another mount did meanwhile, as setting one could.
        shared.inodes.wrote(&self.inode, end);
        shared.report_length_gated(self.inode.id).await
    }

    /// Makes a range zeros, as far as the file reaches. What is zeros already is not written, so that a
    /// hole stays one.
    pub async fn zero_range(&self, offset: u64, length: u64) -> Result<()> {
        self.check_writable()?;
        let size = self.attr().await?.size;
        let end = offset.saturating_add(length).min(size);
        let zeros = SharedBuf::from(vec![0; STEP as usize]);
        let mut at = offset;
        while at < end {
            let step = (end - at).min(STEP);
            if !self.is_zeros(at, step).await? {
                let mut done = 0;
                while done < step as usize {
                    let rest = zeros.slice(done..step as usize);
                    done += self.write_buf_exact(at + done as u64, rest).await?;
                }
            }
            at += step;
        }
        Ok(())
    }

    /// Whether a range reads as zeros; unknown, so no, to who may not read.
    async fn is_zeros(&self, offset: u64, length: u64) -> Result<bool> {
        if !self.how.read {
            return Ok(false);
        }
        let pieces = self.read_pieces(offset, length).await?;
        Ok(pieces.iter().all(|piece| piece.iter().all(|byte| *byte == 0)))
    }
}
