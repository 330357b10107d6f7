//! Sessions: a mount's registration with the namespace. Whether one is alive is in the leader's
//! memory; here they begin and end.

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};
use prost::Message;

use super::{
    inode::{self, decode},
    keys::{self, Tag},
    length, limits, open,
    tx::Tx,
};
use crate::kv::{Kv, KvRead};

pub(super) fn exists(kv: &dyn KvRead, session: u64) -> bool {
    kv.get(&keys::one(Tag::Session, session)).is_some()
}

pub(super) fn check(kv: &dyn KvRead, session: u64) -> Result<(), Status> {
    if exists(kv, session) {
        Ok(())
    } else {
        Err(Status::new(Code::SessionExpired, format!("session {session} is over")))
    }
}

/// Opens a session, or finds the one that an earlier try of the same request opened.
pub(super) fn open(tx: &mut Tx<'_>, op: &pb::OpenSessionOp) -> Result<pb::NsReply, Status> {
    if op.description.len() > limits::DESCRIPTION_BYTES_MAX {
        return Err(Status::new(Code::InvalidArgument, "the description is too long"));
    }
    if op.nonce == 0 {
        return Err(Status::new(Code::InvalidArgument, "a session needs a nonce"));
    }
    if let Some(value) = tx.kv.get(&keys::one(Tag::Nonce, op.nonce)) {
        let Some(session) = keys::number(&value) else {
            return Err(Status::new(Code::Corrupt, "a nonce without its session"));
        };
        return Ok(pb::NsReply { session, ..Default::default() });
    }
    if tx.volume.sessions >= limits::SESSIONS_MAX {
        return Err(Status::new(Code::Busy, "the volume has too many sessions"));
    }
    let session = tx.volume.next_session;
    tx.volume.next_session += 1;
    tx.volume.sessions += 1;
    let record = pb::SessionRecord {
        id: session,
        description: op.description.clone(),
        nonce: op.nonce,
        opened_ns: tx.now_ns,
    };
    tx.kv.put(&keys::one(Tag::Session, session), Bytes::from(record.encode_to_vec()));
    let id = Bytes::copy_from_slice(&session.to_be_bytes());
    tx.kv.put(&keys::one(Tag::Nonce, op.nonce), id);
    tx.put_session_use(session, &pb::SessionUseRecord::default());
    Ok(pb::NsReply { session, ..Default::default() })
}

/// The client ends its session. A second time it has no effect, so it needs no remembered answer.
pub(super) fn close(tx: &mut Tx<'_>) -> Result<pb::NsReply, Status> {
    if tx.session == 0 {
        return Err(Status::new(Code::InvalidArgument, "no session to close"));
    }
    end(tx, tx.session)?;
    Ok(pb::NsReply::default())
}

/// The leader ends sessions that did not renew in time.
pub(super) fn expire(tx: &mut Tx<'_>, op: &pb::ExpireSessionsOp) -> Result<pb::NsReply, Status> {
    if op.sessions.len() > limits::EXPIRE_BATCH_MAX {
        return Err(Status::new(Code::InvalidArgument, "too many sessions in one command"));
    }
    for &session in &op.sessions {
        end(tx, session)?;
    }
    Ok(pb::NsReply::default())
}

/// What the session wrote and did not report stays to be asked from the chains; its remembered
/// answers go with it.
fn end(tx: &mut Tx<'_>, session: u64) -> Result<(), Status> {
    let key = keys::one(Tag::Session, session);
    let Some(value) = tx.kv.get(&key) else { return Ok(()) };
    let record: pb::SessionRecord = decode(&value)?;
    let open: Vec<(Bytes, Bytes)> =
        keys::all(&tx.kv, &keys::one(Tag::WriterOfSession, session)).collect();
    for (index, _) in open {
        let Some(id) = keys::split(&index).and_then(|(_, rest)| keys::number(rest)) else {
            continue;
        };
        lose_writer(tx, id, session)?;
        tx.kv.delete(&index);
    }
    let answers: Vec<(Bytes, Bytes)> =
        keys::all(&tx.kv, &keys::one(Tag::Answer, session)).collect();
    for (answer, _) in answers {
        tx.kv.delete(&answer);
    }
    tx.kv.delete(&keys::one(Tag::SessionUse, session));
    tx.kv.delete(&keys::one(Tag::Nonce, record.nonce));
    tx.kv.delete(&key);
    tx.volume.sessions -= 1;
    Ok(())
}

fn lose_writer(tx: &mut Tx<'_>, id: u64, session: u64) -> Result<(), Status> {
    let Some(mut writer) = open::writer(&tx.kv, id, session)? else {
        return Err(Status::new(Code::Corrupt, "an open file without its write session"));
    };
    let inode = inode::load(&tx.kv, id)?;
    debug_assert!(inode.writers > 0, "an inode counts its writers");
    writer.lost = true;
    let key = keys::two(Tag::Writer, id, session);
    tx.kv.put(&key, Bytes::from(writer.encode_to_vec()));
    length::raise_doubt(tx, id);
    Ok(())
}

pub(super) fn list(kv: &dyn KvRead) -> Result<pb::NsReply, Status> {
    let sessions = keys::all(kv, &[Tag::Session as u8])
        .map(|(_, value)| decode(&value))
        .collect::<Result<Vec<pb::SessionRecord>, Status>>()?;
    Ok(pb::NsReply { sessions, end: true, ..Default::default() })
}
