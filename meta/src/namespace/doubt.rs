//! Lengths in doubt: the machine does not believe a writer under whom the file was cut, nor does it
//! hear from one that is lost; the chains are asked here, and then the machine is told.

use std::time::Duration;

use ff2_proto::{Code, Status, VolumeId, pb};
use pb::ns_request::Op;

use super::{NamespaceGroup, leader::NamespaceLead};

/// Between two tries of a question whose chain is down.
const PAUSE: Duration = Duration::from_millis(200);

impl NamespaceGroup {
    /// Puts the length that the chains have into an answer whose writer was not believed: a close or
    /// fsync must not say that all is well while everybody sees the old size. Returns when nothing is
    /// in doubt, or when this leader's term is over.
    pub(super) async fn settle_length(
        &self,
        volume: VolumeId,
        reply: &mut pb::NsReply,
    ) -> Result<(), Status> {
        let lead = self.lead.get().ok_or_else(|| self.not_leader())?;
        let Some(inode) = reply.attr.as_ref().map(|attr| attr.inode) else { return Ok(()) };
        let mut told = false;
        while let Some(doubt) = self.doubt(volume, inode).await? {
            if let Err(status) = self.recover_length(&lead, volume, &doubt).await {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(%volume, inode, %status, "a writer waits for its length");
                }
                tokio::time::sleep(PAUSE).await;
            }
            lead.check()?;
        }
        match self.ask(volume, Op::GetAttr(pb::GetAttrOp { inode })).await {
            Ok(now) => reply.attr = now.attr,
            // It was removed meanwhile, and the answer is about what was.
            Err(status) if status.code == Code::NotFound => {}
            Err(status) => return Err(status),
        }
        Ok(())
    }

    /// Asks the chains about one inode and logs what they say.
    pub(super) async fn recover_length(
        &self,
        lead: &NamespaceLead,
        volume: VolumeId,
        doubt: &pb::LengthDoubt,
    ) -> Result<(), Status> {
        let length = self.chunks.length(&lead.term, doubt).await?;
        lead.check()?;
        let op = pb::RecoverLengthOp { inode: doubt.inode, doubt: doubt.doubt, length };
        self.command(volume, Op::RecoverLength(op)).await?;
        Ok(())
    }

    async fn doubt(&self, volume: VolumeId, inode: u64) -> Result<Option<pb::LengthDoubt>, Status> {
        let op = pb::ListLengthDoubtsOp { after_inode: inode - 1, limit: 1 };
        let listed = self.ask(volume, Op::ListLengthDoubts(op)).await?.length_doubts;
        Ok(listed.into_iter().find(|doubt| doubt.inode == inode))
    }
}
