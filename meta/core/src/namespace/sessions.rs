//! Sessions: a mount's registration with the namespace. Whether one is alive is in the leader's
//! memory; here they begin and end.

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};
use prost::Message;

use super::{
    inode::{self, decode},
    keys::{self, Tag},
    length, limits, locks, open, orphans,
    request::Owner,
    tx::Tx,
};
use crate::kv::{Kv, KvRead};

/// The session on record, if it goes on.
pub fn session(kv: &dyn KvRead, session: u64) -> Result<Option<pb::SessionRecord>, Status> {
    Ok(record(kv, session)?.filter(|record| !record.ending))
}

fn record(kv: &dyn KvRead, session: u64) -> Result<Option<pb::SessionRecord>, Status> {
    kv.get(&keys::one(Tag::Session, session)).map(|value| decode(&value)).transpose()
}

/// Whether the owner may go on with this session.
pub(super) fn check(kv: &dyn KvRead, id: u64, owner: Owner) -> Result<(), Status> {
    match session(kv, id)? {
        Some(record) => check_owner(&record, owner),
        None => Err(Status::new(Code::SessionExpired, format!("session {id} is over"))),
    }
}

fn check_owner(record: &pb::SessionRecord, owner: Owner) -> Result<(), Status> {
    if record.owner == owner {
        return Ok(());
    }
    Err(Status::new(Code::Forbidden, format!("session {} belongs to another user", record.id)))
}

/// Opens a session, or finds the one that an earlier try of the same request opened.
pub(super) fn open(tx: &mut Tx<'_>, op: &pb::OpenSessionOp) -> Result<pb::NsReply, Status> {
    if op.description.len() > limits::DESCRIPTION_BYTES_MAX {
        return Err(Status::new(Code::InvalidArgument, "the description is too long"));
    }
    if op.nonce == 0 {
        return Err(Status::new(Code::InvalidArgument, "a session needs a nonce"));
    }
    let orphan_seq = tx.volume.next_orphan_seq.saturating_sub(1);
    if let Some(value) = tx.kv.get(&keys::nonce(tx.owner, op.nonce)) {
        let Some(session) = keys::number(&value) else {
            return Err(Status::new(Code::Corrupt, "a nonce without its session"));
        };
        return Ok(pb::NsReply { session, orphan_seq, ..Default::default() });
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
        owner: tx.owner,
        ending: false,
        caches: op.caches,
    };
    put(tx, &record);
    let id = Bytes::copy_from_slice(&session.to_be_bytes());
    tx.kv.put(&keys::nonce(tx.owner, op.nonce), id);
    tx.put_session_use(session, &pb::SessionUseRecord::default());
    Ok(pb::NsReply { session, orphan_seq, ..Default::default() })
}

fn put(tx: &mut Tx<'_>, record: &pb::SessionRecord) {
    tx.kv.put(&keys::one(Tag::Session, record.id), Bytes::from(record.encode_to_vec()));
}

/// The client ends its session. A second time it has no effect, so it needs no remembered answer.
pub(super) fn close(tx: &mut Tx<'_>) -> Result<pb::NsReply, Status> {
    if tx.session == 0 {
        return Err(Status::new(Code::InvalidArgument, "no session to close"));
    }
    if let Some(record) = record(&tx.kv, tx.session)? {
        check_owner(&record, tx.owner)?;
        end(tx, record, &mut { limits::END_STEPS_MAX })?;
    }
    Ok(pb::NsReply::default())
}

/// The leader ends sessions that did not renew in time, and goes on with those that end already.
pub(super) fn expire(tx: &mut Tx<'_>, op: &pb::ExpireSessionsOp) -> Result<pb::NsReply, Status> {
    if op.sessions.len() > limits::EXPIRE_BATCH_MAX {
        return Err(Status::new(Code::InvalidArgument, "too many sessions in one command"));
    }
    let mut steps = limits::END_STEPS_MAX;
    for &session in &op.sessions {
        if let Some(record) = record(&tx.kv, session)? {
            end(tx, record, &mut steps)?;
        }
    }
    Ok(pb::NsReply::default())
}

/// The session is over at once. Its locks go to those that wait for them, what it wrote and did not
/// report stays to be asked from the chains, and its remembered answers go: `steps` of all now, the
/// rest when this is asked again.
fn end(tx: &mut Tx<'_>, mut record: pb::SessionRecord, steps: &mut usize) -> Result<(), Status> {
    let session = record.id;
    if !record.ending {
        record.ending = true;
        put(tx, &record);
        // Whoever opens under this nonce again gets a session that lives.
        tx.kv.delete(&keys::nonce(record.owner, record.nonce));
    }
    for index in take(tx, Tag::LocksOfSession, session, steps) {
        if let Some(id) = keys::split(&index).and_then(|(_, rest)| keys::number(rest)) {
            locks::leave(tx, id, session)?;
        }
    }
    for index in take(tx, Tag::WriterOfSession, session, steps) {
        let Some(id) = keys::split(&index).and_then(|(_, rest)| keys::number(rest)) else {
            continue;
        };
        lose_writer(tx, id, session)?;
        tx.kv.delete(&index);
    }
    let mut usage = tx.session_use(session)?.unwrap_or_default();
    for answer in take(tx, Tag::Answer, session, steps) {
        tx.kv.delete(&answer);
        assert!(usage.answers > 0, "answers are counted");
        usage.answers -= 1;
    }
    if *steps == 0 {
        tx.put_session_use(session, &usage);
        return Ok(());
    }
    tx.kv.delete(&keys::one(Tag::SessionUse, session));
    tx.kv.delete(&keys::one(Tag::Session, session));
    tx.volume.sessions -= 1;
    Ok(())
}

/// Keys of a session, as many as there are steps left for.
fn take(tx: &Tx<'_>, tag: Tag, session: u64, steps: &mut usize) -> Vec<Bytes> {
    let prefix = keys::one(tag, session);
    let found = tx.kv.scan(&prefix, &keys::end_of(&prefix), *steps);
    *steps -= found.len();
    found.into_iter().map(|(key, _)| key).collect()
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
    orphans::writer_ended(tx, &inode)
}

pub(super) fn list(kv: &dyn KvRead) -> Result<pb::NsReply, Status> {
    let sessions = keys::all(kv, &[Tag::Session as u8])
        .map(|(_, value)| decode(&value))
        .collect::<Result<Vec<pb::SessionRecord>, Status>>()?;
    Ok(pb::NsReply { sessions, end: true, ..Default::default() })
}
