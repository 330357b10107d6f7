//! What writers report: close, and the length from time to time.

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};
use prost::Message;

use super::{
    inline,
    inode::{self, Inode},
    keys::{self, Tag},
    length, locks, open, perm,
    tx::Tx,
    xattr,
};
use crate::kv::Kv;

pub(super) fn close(tx: &mut Tx<'_>, op: &pb::CloseOp) -> Result<pb::NsReply, Status> {
    let (mut inode, mut writer) = writing(tx, op.inode)?;
    let mut length_in_doubt = false;
    if op.wrote || op.length_at_least > inode.attr.size {
        length_in_doubt = wrote(tx, &mut inode, &writer, &Wrote::of_close(op))?;
    }
    length::attempted(tx, &mut inode, op.attempted_end)?;
    let mut lock_grants = Vec::new();
    if op.opens == 0 || op.opens >= writer.opens {
        open::end_write(tx, &mut inode, tx.session)?;
        lock_grants = locks::end_append(tx, inode.id(), tx.session)?;
    } else {
        // Another open of this session was on its way while this close was sent.
        writer.opens -= op.opens;
        let key = keys::two(Tag::Writer, inode.id(), tx.session);
        tx.kv.put(&key, Bytes::from(writer.encode_to_vec()));
    }
    tx.put_inode(&inode);
    let attr = Some(inode.attr);
    Ok(pb::NsReply { attr, length_in_doubt, lock_grants, ..Default::default() })
}

pub(super) fn report_length(
    tx: &mut Tx<'_>,
    op: &pb::ReportLengthOp,
) -> Result<pb::NsReply, Status> {
    let (mut inode, writer) = writing(tx, op.inode)?;
    let length_in_doubt = wrote(tx, &mut inode, &writer, &Wrote::of_report(op))?;
    length::attempted(tx, &mut inode, op.attempted_end)?;
    tx.put_inode(&inode);
    Ok(pb::NsReply { attr: Some(inode.attr), length_in_doubt, ..Default::default() })
}

pub(super) fn writing(tx: &Tx<'_>, id: u64) -> Result<(Inode, pb::WriteSessionRecord), Status> {
    let inode = inode::load(&tx.kv, id)?;
    let Some(writer) = open::writer(&tx.kv, id, tx.session)? else {
        return Err(Status::new(Code::BadHandle, "this session does not write the inode"));
    };
    inode.settled()?;
    Ok((inode, writer))
}

/// What a writer says that it did.
struct Wrote<'a> {
    length_at_least: u64,
    mtime_ns: i64,
    inline: &'a [pb::InlineWrite],
}

impl<'a> Wrote<'a> {
    fn of_close(op: &'a pb::CloseOp) -> Self {
        let pb::CloseOp { length_at_least, mtime_ns, inline_writes, .. } = op;
        Self { length_at_least: *length_at_least, mtime_ns: *mtime_ns, inline: inline_writes }
    }

    fn of_report(op: &'a pb::ReportLengthOp) -> Self {
        let pb::ReportLengthOp { length_at_least, mtime_ns, inline_writes, .. } = op;
        Self { length_at_least: *length_at_least, mtime_ns: *mtime_ns, inline: inline_writes }
    }
}

/// Takes in that bytes were written. Returns whether the chains must be asked how far.
fn wrote(
    tx: &mut Tx<'_>,
    inode: &mut Inode,
    writer: &pb::WriteSessionRecord,
    said: &Wrote<'_>,
) -> Result<bool, Status> {
    let mut in_doubt = false;
    if inode.attr.inline {
        inline::write(tx, inode, said.inline)?;
    } else if !said.inline.is_empty() {
        return Err(Status::new(Code::NotInline, "the file has chunks by now"));
    } else if writer.overtaken {
        length::raise_doubt(tx, inode.id());
        in_doubt = true;
    } else {
        length::grow(tx, inode, said.length_at_least)?;
    }
    inode.modified(tx.now_ns);
    if said.mtime_ns != 0 {
        inode.attr.mtime_ns = said.mtime_ns;
    }
    if !perm::is_root(&tx.cred) {
        inode.attr.mode = perm::without_privileges(inode.attr.mode);
    }
    xattr::drop_capability(tx, inode);
    Ok(in_doubt)
}
