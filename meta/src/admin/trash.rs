//! The trash: its setting, what is in it, and how that comes back or goes.

use ff2_proto::{Code, Status, pb};
use pb::ns_request::Op;

use super::AdminState;
use crate::{limits, namespace::trash_now_ns};

impl AdminState {
    pub(super) async fn set_trash(
        &self,
        request: pb::SetTrashRequest,
    ) -> Result<pb::SetTrashReply, Status> {
        let volume = self.volume(&request.volume)?;
        let op = pb::SetTrashOp { keep_s: request.keep_s };
        let sums = self.namespace.command(volume, Op::SetTrash(op)).await?.trash_sums;
        tracing::info!(keep_s = request.keep_s, "the trash is set");
        Ok(pb::SetTrashReply { sums })
    }

    pub(super) async fn list_trash(
        &self,
        request: pb::ListTrashRequest,
    ) -> Result<pb::ListTrashReply, Status> {
        let volume = self.volume(&request.volume)?;
        let limit = if request.sums { 0 } else { limits::TRASH_PAGE };
        let pb::ListTrashRequest { after, under, .. } = request;
        let op = pb::ListTrashOp { after, limit, under };
        let reply = self.namespace.ask(volume, Op::ListTrash(op)).await?;
        Ok(pb::ListTrashReply {
            entries: reply.trash,
            sums: reply.trash_sums,
            after: reply.trash_after,
            end: reply.end,
        })
    }

    pub(super) async fn restore_trash(
        &self,
        request: pb::RestoreTrashRequest,
    ) -> Result<pb::RestoreTrashReply, Status> {
        let volume = self.volume(&request.volume)?;
        let op = pb::RestoreTrashOp { entry: request.entry, path: request.path };
        let entry = self.namespace.command(volume, Op::RestoreTrash(op)).await?.trash.pop();
        tracing::info!(?entry, "a file is back from the trash");
        let lost = || Status::new(Code::Internal, "the namespace does not say what it restored");
        Ok(pb::RestoreTrashReply { entry: Some(entry.ok_or_else(lost)?) })
    }

    pub(super) async fn empty_trash(
        &self,
        request: pb::EmptyTrashRequest,
    ) -> Result<pb::EmptyTrashReply, Status> {
        let volume = self.volume(&request.volume)?;
        let (now_ns, age_s) = (trash_now_ns(), request.older_than_s);
        let (emptied, end) =
            self.namespace.empty_trash(volume, now_ns, age_s, limits::TRASH_STEPS).await?;
        tracing::info!(emptied, age_s, "the trash is emptied");
        let list = Op::ListTrash(pb::ListTrashOp::default());
        let sums = self.namespace.ask(volume, list).await?.trash_sums;
        Ok(pb::EmptyTrashReply { emptied, sums, end })
    }
}
