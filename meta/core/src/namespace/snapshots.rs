//! The life of a snapshot: it gets its number, it is cut, it is removed, and what it kept goes.
//!
//! The leader's driver makes one step after the other, and what is done in between with the chains; a new
//! leader goes on where the record says.

use bytes::Bytes;
use ff2_proto::{Status, pb, status::Code};
use pb::{SnapshotState as State, SnapshotStep as Step};
use prost::Message;

use super::{
    dir,
    inode::decode,
    keys::{self, Tag},
    limits, number, preserve,
    tx::Tx,
};
use crate::kv::{Kv, KvRead};

/// The level of a cluster whose programs all know snapshots.
const LEVEL: u32 = 3;

/// All of them in their order.
pub fn all(kv: &dyn KvRead) -> Result<Vec<pb::SnapshotRecord>, Status> {
    keys::all(kv, &[Tag::Snapshot as u8]).map(|(_, value)| decode(&value)).collect()
}

pub(super) fn list(kv: &dyn KvRead) -> Result<pb::NsReply, Status> {
    Ok(pb::NsReply { snapshots: all(kv)?, end: true, ..Default::default() })
}

pub(super) fn step(tx: &mut Tx<'_>, op: &pb::StepSnapshotOp) -> Result<pb::NsReply, Status> {
    let snapshots = all(&tx.kv)?;
    let record = match op.step() {
        Step::Begin => begin(tx, &snapshots, &op.name)?,
        Step::Remove => remove(tx, &snapshots, &op.name)?,
        Step::Cut | Step::PassOn | Step::Forget | Step::GiveUp => {
            let Some(record) = snapshots.iter().find(|record| record.id == op.id) else {
                return Ok(pb::NsReply::default());
            };
            match op.step() {
                Step::Cut => cut(tx, record),
                Step::PassOn => pass_on(tx, &snapshots, record),
                step => {
                    // One that was given up was seen by nobody, and nothing was kept for it.
                    let ends = if step == Step::GiveUp { State::Making } else { State::Trimming };
                    forget(tx, record, ends);
                    return Ok(pb::NsReply::default());
                }
            }
        }
        Step::Unknown => return Err(Status::new(Code::InvalidArgument, "an unknown step")),
    };
    Ok(pb::NsReply { snapshots: vec![record], ..Default::default() })
}

fn put(tx: &mut Tx<'_>, record: &pb::SnapshotRecord) {
    tx.kv.put(&key(record.id), Bytes::from(record.encode_to_vec()));
}

fn key(id: u32) -> [u8; 9] {
    keys::one(Tag::Snapshot, id.into())
}

fn begin(
    tx: &mut Tx<'_>,
    snapshots: &[pb::SnapshotRecord],
    name: &Bytes,
) -> Result<pb::SnapshotRecord, Status> {
    tx.require_level(LEVEL, "a snapshot")?;
    dir::check_name(name)?;
    let is_going = |record: &pb::SnapshotRecord| is_going(record.state());
    match snapshots.iter().find(|record| record.name == *name && !is_going(record)) {
        Some(record) if record.state() == State::Making => return Ok(record.clone()),
        Some(_) => return Err(Status::new(Code::Exists, "there is a snapshot of this name")),
        None => {}
    }
    if snapshots.len() >= limits::SNAPSHOTS_MAX {
        let why = format!("a volume has up to {} snapshots", limits::SNAPSHOTS_MAX);
        return Err(Status::new(Code::InvalidArgument, why));
    }
    tx.volume.next_snapshot += 1;
    // As late as can be: programs may remember numbers of a snapshot that is gone.
    let is_free = |slot: &u32| snapshots.iter().all(|record| record.slot != *slot);
    let after = tx.volume.last_slot;
    let slots = (0..number::SLOTS).map(|step| (after + step) % number::SLOTS + 1);
    let slot = slots.into_iter().find(is_free).expect("there are more slots than snapshots");
    tx.volume.last_slot = slot;
    let record = pb::SnapshotRecord {
        id: tx.volume.next_snapshot,
        name: name.clone(),
        state: State::Making.into(),
        slot,
        ..Default::default()
    };
    put(tx, &record);
    Ok(record)
}

/// From now on it shows the volume as it is at this moment.
fn cut(tx: &mut Tx<'_>, record: &pb::SnapshotRecord) -> pb::SnapshotRecord {
    if record.state() != State::Making {
        return record.clone();
    }
    let record = pb::SnapshotRecord {
        state: State::Ready.into(),
        made_ns: tx.now_ns,
        inodes: tx.volume.inodes,
        bytes: tx.volume.bytes,
        ..record.clone()
    };
    assert!(tx.volume.newest_snapshot < record.id, "numbers grow");
    tx.volume.newest_snapshot = record.id;
    put(tx, &record);
    record
}

fn remove(
    tx: &mut Tx<'_>,
    snapshots: &[pb::SnapshotRecord],
    name: &[u8],
) -> Result<pb::SnapshotRecord, Status> {
    let named = || snapshots.iter().rev().filter(|record| record.name == name);
    let Some(record) = named().find(|record| !is_going(record.state())) else {
        let going = named().next().cloned();
        return going
            .ok_or_else(|| Status::new(Code::NotFound, "there is no snapshot of this name"));
    };
    if record.state() == State::Making {
        return Err(Status::new(Code::InvalidArgument, "the snapshot is being made: wait for it"));
    }
    let record = pb::SnapshotRecord { state: State::Removing.into(), ..record.clone() };
    put(tx, &record);
    Ok(record)
}

/// Rows are preserved for it until all are passed on, so that none comes behind.
fn pass_on(
    tx: &mut Tx<'_>,
    snapshots: &[pb::SnapshotRecord],
    record: &pb::SnapshotRecord,
) -> pb::SnapshotRecord {
    if record.state() != State::Removing {
        return record.clone();
    }
    let older = preserve::ids_from(snapshots, 0).into_iter().rfind(|id| *id < record.id);
    if !preserve::pass_on(&mut tx.kv, record.id, older) {
        return record.clone();
    }
    if tx.volume.newest_snapshot == record.id {
        tx.volume.newest_snapshot = older.unwrap_or(0);
    }
    let record = pb::SnapshotRecord { state: State::Trimming.into(), ..record.clone() };
    put(tx, &record);
    record
}

fn forget(tx: &mut Tx<'_>, record: &pb::SnapshotRecord, ends: State) {
    if record.state() == ends {
        tx.kv.delete(&key(record.id));
    }
}

fn is_going(state: State) -> bool {
    matches!(state, State::Removing | State::Trimming)
}

/// Whether a chunk's clone `kept_for`, which was so since `since`, is shown by any snapshot.
pub fn is_kept(snapshots: &[pb::SnapshotRecord], since: u32, kept_for: u32) -> bool {
    let is_there = |record: &&pb::SnapshotRecord| !is_going(record.state());
    let mut ids = snapshots.iter().filter(is_there).map(|record| record.id);
    ids.any(|id| since < id && id <= kept_for)
}
