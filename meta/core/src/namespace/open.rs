//! Opening files, and the write sessions that writing opens make. A read-only open leaves no trace.

use bytes::Bytes;
use ff2_proto::{
    Status,
    pb::{self, FileKind},
    status::Code,
};
use prost::Message;

use super::{
    inline,
    inode::{self, Inode, decode},
    keys::{self, Tag},
    limits, orphans, perm, quota, trash, truncate,
    tx::Tx,
};
use crate::kv::{Kv, KvRead};

/// Whether the open changes anything.
pub(super) fn is_writing(op: &pb::OpenOp) -> bool {
    op.write || op.truncate
}

/// Whether `op` may be done to `inode`.
pub(super) fn check(cred: &pb::Credentials, inode: &Inode, op: &pb::OpenOp) -> Result<(), Status> {
    match inode.kind() {
        FileKind::Directory if is_writing(op) => return Err(Code::IsDirectory.into()),
        FileKind::Symlink => return Err(Code::SymlinkLoop.into()),
        FileKind::Directory
        | FileKind::Regular
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice
        | FileKind::BlockDevice
        | FileKind::KindUnknown => {}
    }
    let mut mask = 0;
    if op.read {
        mask |= perm::READ;
    }
    if is_writing(op) {
        mask |= perm::WRITE;
    }
    if op.execute {
        mask |= perm::EXECUTE;
    }
    perm::check(cred, inode, mask)?;
    inode.settled()
}

/// An open that only reads.
pub(super) fn read_only(
    kv: &dyn KvRead,
    cred: &pb::Credentials,
    op: &pb::OpenOp,
) -> Result<pb::NsReply, Status> {
    if is_writing(op) {
        return Err(Status::new(Code::InvalidArgument, "a writing open is a mutation"));
    }
    let inode = inode::load(kv, op.inode)?;
    check(cred, &inode, op)?;
    let has_data = inode.attr.inline && op.read;
    let inline_data = if has_data { inline::data(kv, op.inode) } else { Bytes::new() };
    let orphan_seq = orphans::seq(kv, &inode)?;
    let attr = Some(trash::opened(&inode));
    Ok(pb::NsReply { attr, inline_data, orphan_seq, ..Default::default() })
}

pub(super) fn apply(tx: &mut Tx<'_>, op: &pb::OpenOp) -> Result<pb::NsReply, Status> {
    debug_assert!(is_writing(op), "a read-only open is never logged");
    let mut inode = inode::load(&tx.kv, op.inode)?;
    let truncation = existing(tx, &mut inode, op)?;
    let orphan_seq = orphans::seq(&tx.kv, &inode)?;
    let attr = Some(trash::opened(&inode));
    Ok(pb::NsReply { attr, truncation, orphan_seq, ..Default::default() })
}

/// Opens (and truncates) what is already there.
pub(super) fn existing(
    tx: &mut Tx<'_>,
    inode: &mut Inode,
    op: &pb::OpenOp,
) -> Result<Option<pb::Truncation>, Status> {
    check(&tx.cred, inode, op)?;
    if !inode.is_regular() {
        // Fifos and devices live in the kernel of the mount.
        return Ok(None);
    }
    let truncation = if op.truncate { truncate::resize(tx, inode, 0)? } else { None };
    if op.write {
        begin_write(tx, inode)?;
    }
    tx.put_inode(inode);
    Ok(truncation)
}

/// One more writing open of this session. The caller stores the inode.
pub(super) fn begin_write(tx: &mut Tx<'_>, inode: &mut Inode) -> Result<(), Status> {
    debug_assert!(inode.is_regular());
    let key = keys::two(Tag::Writer, inode.id(), tx.session);
    let mut writer = match writer(&tx.kv, inode.id(), tx.session)? {
        Some(writer) => writer,
        None => {
            let mut usage = tx.session_use(tx.session)?.unwrap_or_default();
            if usage.writers >= limits::WRITERS_PER_SESSION_MAX {
                return Err(Status::new(Code::Busy, "the session writes too many files"));
            }
            usage.writers += 1;
            tx.put_session_use(tx.session, &usage);
            if !quota::is_counted(inode) {
                quota::written_again(tx, inode)?;
            }
            inode.writers += 1;
            tx.kv.put(&keys::two(Tag::WriterOfSession, tx.session, inode.id()), Bytes::new());
            pb::WriteSessionRecord::default()
        }
    };
    assert!(!writer.lost, "a session that lives has not lost its writers");
    writer.opens = writer.opens.saturating_add(1);
    tx.kv.put(&key, Bytes::from(writer.encode_to_vec()));
    Ok(())
}

pub(super) fn writer(
    kv: &dyn KvRead,
    inode: u64,
    session: u64,
) -> Result<Option<pb::WriteSessionRecord>, Status> {
    kv.get(&keys::two(Tag::Writer, inode, session)).map(|bytes| decode(&bytes)).transpose()
}

/// Ends a write session. The caller stores the inode.
pub(super) fn end_write(tx: &mut Tx<'_>, inode: &mut Inode, session: u64) -> Result<(), Status> {
    assert!(inode.writers > 0, "an inode counts its writers");
    inode.writers -= 1;
    if !quota::is_counted(inode) {
        quota::remove(tx, inode)?;
    }
    orphans::writer_ended(tx, inode)?;
    tx.kv.delete(&keys::two(Tag::Writer, inode.id(), session));
    tx.kv.delete(&keys::two(Tag::WriterOfSession, session, inode.id()));
    if let Some(mut usage) = tx.session_use(session)? {
        assert!(usage.writers > 0, "a session counts its writers");
        usage.writers -= 1;
        tx.put_session_use(session, &usage);
    }
    Ok(())
}

/// Ends those write sessions of an inode that `which` chooses.
pub(super) fn drop_writers(
    tx: &mut Tx<'_>,
    inode: &mut Inode,
    which: impl Fn(&pb::WriteSessionRecord) -> bool,
) -> Result<(), Status> {
    let prefix = keys::one(Tag::Writer, inode.id());
    let writers: Vec<(Bytes, Bytes)> = keys::all(&tx.kv, &prefix).collect();
    for (key, value) in writers {
        let session = keys::split(&key).and_then(|(_, rest)| keys::number(rest));
        if let Some(session) = session
            && which(&decode(&value)?)
        {
            end_write(tx, inode, session)?;
        }
    }
    Ok(())
}
