//! What a replica keeps: its log, raft's state, and the key-value state, behind one trait with two
//! implementations. [`RocksStore`] is the disk; [`MemStore`] is memory that can lose what was not
//! synced, for the simulator.
//!
//! Everything changes through [`LogStore::write`]: a batch is atomic, batches reach the disk in order,
//! and a synced batch makes all earlier ones durable. A crash therefore leaves a prefix of the batches
//! that holds at least the last synced one.

use std::collections::BTreeMap;

use bytes::Bytes;
use ff2_meta_core::KvRead;
use ff2_proto::{Status, pb, status::Code};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};

use crate::{limits, membership::Membership};

mod log;
mod memory;
mod rocks;

pub use memory::MemStore;
pub(crate) use rocks::{Pins, StateReader, random};
pub use rocks::{RocksStore, format_group, restore_group};

/// One atomic change. Fields that are empty or `None` leave things as they are.
#[derive(Clone, Debug, Default)]
pub struct StoreBatch {
    /// The state that the install pages built becomes the state, and the log starts anew behind it.
    pub install: Option<Install>,
    /// Changes of the key-value state by the commands up to `applied`.
    pub changes: BTreeMap<Bytes, Option<Bytes>>,
    pub applied: Option<u64>,
    pub conf: Option<ConfState>,
    pub membership: Option<Membership>,
    /// Replace the log from the first one's index on.
    pub entries: Vec<Entry>,
    pub hard: Option<HardState>,
    /// Forget the log up to and including this index.
    pub truncate: Option<u64>,
}

/// The place of an installed snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Install {
    pub index: u64,
    pub term: u64,
    pub conf: ConfState,
    pub membership: Membership,
}

/// A replica's storage. raft-rs reads it through [`raft::Storage`].
///
/// Nothing here fails: an implementation that meets a disk error stops the process, because a
/// replica that goes on after a failed write could deny what it promised.
pub trait LogStore: raft::Storage {
    /// Runs `read` over the state as of [`Self::applied`].
    fn with_state<R>(&self, read: impl FnOnce(&dyn KvRead) -> R) -> R;
    fn applied(&self) -> u64;
    fn hard(&self) -> &HardState;
    fn conf(&self) -> &ConfState;
    fn membership(&self) -> &Membership;

    /// Changes everything in the batch or nothing; `sync` returns only when it is durable.
    fn write(&mut self, batch: StoreBatch, sync: bool);

    /// The largest index that may be truncated so that the log keeps `entries` entries (fewer only
    /// if they exceed [`limits::LOG_BYTES_MAX`]) and what followers of pinned snapshots will need.
    fn truncatable(&self, entries: u64) -> u64;

    /// Empties the spare state for the pages that follow.
    fn begin_install(&mut self);
    fn install_page(&mut self, pairs: &[pb::KeyValue]);

    /// How many pages the pinned snapshot has served, or `None` if it is not pinned.
    fn pages_served(&self, snapshot: u64) -> Option<u64>;
    fn unpin(&mut self, snapshot: u64);
    /// A page of a pinned snapshot.
    fn page(&self, request: &pb::FetchSnapshotRequest) -> pb::FetchSnapshotReply;
}

/// The message that stands for a snapshot: where it can be fetched, not the state itself.
pub(crate) fn snapshot_message(
    manifest: &pb::SnapshotManifest,
    term: u64,
    conf: &ConfState,
) -> Snapshot {
    let mut metadata = SnapshotMetadata { index: manifest.index, term, ..Default::default() };
    metadata.set_conf_state(conf.clone());
    let data = prost::Message::encode_to_vec(manifest);
    let mut snapshot = Snapshot { data, ..Default::default() };
    snapshot.set_metadata(metadata);
    snapshot
}

/// A page from pairs in key order. `pairs` begins behind the requested key.
pub(crate) fn page(
    request: &pb::FetchSnapshotRequest,
    pairs: impl Iterator<Item = (Bytes, Bytes)>,
) -> pb::FetchSnapshotReply {
    let asked = if request.limit_bytes == 0 { limits::PAGE_BYTES } else { request.limit_bytes };
    let limit = asked.min(limits::PAGE_BYTES_MAX) as usize;
    let mut reply = pb::FetchSnapshotReply { end: true, ..Default::default() };
    let mut bytes = 0;
    for (key, value) in pairs {
        let size = key.len() + value.len() + 16;
        if bytes > 0 && bytes + size > limit {
            reply.end = false;
            break;
        }
        bytes += size;
        reply.pairs.push(pb::KeyValue { key, value });
    }
    reply.crc32c = checksum(&reply.pairs);
    reply
}

pub(crate) fn no_such_snapshot() -> pb::FetchSnapshotReply {
    let status = Status::new(Code::NotFound, "this snapshot is not held here (any more)");
    pb::FetchSnapshotReply { status: Some(status.into()), ..Default::default() }
}

/// CRC32C over the pairs of a page, each part behind its length.
pub(crate) fn checksum(pairs: &[pb::KeyValue]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for pair in pairs {
        for part in [&pair.key, &pair.value] {
            digest.update(&(part.len() as u32).to_le_bytes());
            digest.update(part);
        }
    }
    digest.finalize() as u32
}
