//! Writes that let a file grow ask what its quotas leave, unless that is known.

use std::sync::Arc;

use ff2_proto::{Code, Status, pb, pb::ns_request::Op};

use crate::{Result, client::Shared, inodes::OpenInode};

impl Shared {
    /// How many of `length` bytes at `offset` may be written; none: it is an error. With the gate of a file
    /// that is registered as written.
    pub(super) async fn make_room(
        self: &Arc<Self>,
        open: &Arc<OpenInode>,
        cred: &pb::Credentials,
        offset: u64,
        length: u64,
    ) -> Result<u64> {
        let end = offset + length;
        if end <= open.grow_to() {
            return Ok(length);
        }
        // What was written counts first; the answer says what is left then.
        self.report_length(open.id).await?;
        if end > open.grow_to() {
            let ask = Op::StatFs(pb::StatFsOp { inode: open.id.0 });
            open.take_room_now(self.read(cred, ask).await?.quota_room, end);
        }
        match open.grow_to().saturating_sub(offset).min(length) {
            0 if length > 0 => {
                let why = "no more bytes are left in the quota of the folder or of the owner";
                Err(Status::new(Code::QuotaExceeded, why))
            }
            fits => Ok(fits),
        }
    }
}
