//! Making and opening a group's folder.

use std::{fs, io::Read as _, path::Path, sync::Arc};

use ff2_daemon::torn_log;
use ff2_proto::{GroupId, pb};
use prost::Message as _;
use prost011::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, Direction, ErrorKind, IteratorMode, Options, WriteBatch, WriteOptions,
};

use super::{Pins, RocksStore, StateReader};
use crate::{
    error::GroupError,
    format::{self, FIRST_FORMAT, FORMAT, Identity},
    limits,
    membership::Membership,
    metrics::GroupMetrics,
    store::log::LogShape,
};

/// Forms a new group: writes this node's replica of it. Every founding member does so with the same
/// `members`, of which a raft id of 0 stands for the node's number. Refuses a folder that has data.
pub fn format_group(
    data_dir: &Path,
    group: GroupId,
    node: u32,
    members: &[pb::Member],
) -> Result<(), GroupError> {
    let place = (format::BOOT_INDEX, format::BOOT_TERM);
    let nothing = || Ok::<_, GroupError>(None);
    form(&format::group_folder(data_dir, group), group, node, members, place, nothing)
}

/// As [`format_group`], with a state that `next` brings page by page, which all founding members do alike. `at_s` is
/// the time of the restore, the same for all: as log index and term it is above all that replicas of the lost group
/// had, so that one of them that turns up can never lead.
pub fn restore_group<E: From<GroupError>>(
    data_dir: &Path,
    group: GroupId,
    node: u32,
    members: &[pb::Member],
    at_s: u64,
    next: impl FnMut() -> Result<Option<Vec<pb::KeyValue>>, E>,
) -> Result<(), E> {
    form(&format::group_folder(data_dir, group), group, node, members, (at_s, at_s), next)
}

/// The identity comes last: without it the folder holds no replica.
fn form<E: From<GroupError>>(
    folder: &Path,
    group: GroupId,
    node: u32,
    members: &[pb::Member],
    (index, term): (u64, u64),
    mut next: impl FnMut() -> Result<Option<Vec<pb::KeyValue>>, E>,
) -> Result<(), E> {
    let mut members = members.to_vec();
    for member in &mut members {
        if member.raft_id == 0 {
            member.raft_id = u64::from(member.node);
        }
    }
    let membership = Membership::new(members.iter().cloned());
    check_founders(&membership, members.len())?;
    let own = members.iter().find(|member| member.node == node);
    let own = own.ok_or_else(|| GroupError::Config(format!("node {node} is no member")))?;
    let db = open_database(folder, 8 << 20)?.0;
    if (Records { db: &db, folder }).get(format::IDENTITY)?.is_some() {
        return Err(GroupError::AlreadyFormatted { folder: folder.to_path_buf() }.into());
    }
    let failed = |source| GroupError::Open { folder: folder.to_path_buf(), source };
    while let Some(pairs) = next()? {
        let state = db.cf_handle(format::CF_STATES[0]).expect("made at open");
        let mut batch = WriteBatch::default();
        for pair in &pairs {
            batch.put_cf(&state, &pair.key, &pair.value);
        }
        db.write(batch).map_err(failed)?;
    }
    let identity = Identity {
        format: FIRST_FORMAT,
        group: group.0,
        node,
        raft_id: own.raft_id,
        incarnation: random(),
    };
    let hard = HardState { term, commit: index, vote: 0 };
    let voters = membership.members.keys().copied().collect();
    let conf = ConfState { voters, ..Default::default() };
    let raft = db.cf_handle(format::CF_RAFT).expect("made at open");
    let mut batch = WriteBatch::default();
    batch.put_cf(&raft, format::IDENTITY, identity.encode_to_vec());
    batch.put_cf(&raft, format::HARD, hard.encode_to_vec());
    batch.put_cf(&raft, format::CONF, conf.encode_to_vec());
    batch.put_cf(&raft, format::MEMBERS, membership.encode());
    batch.put_cf(&raft, format::APPLIED, index.to_be_bytes());
    batch.put_cf(&raft, format::TRUNCATED, format::pair(index, term));
    batch.put_cf(&raft, format::ACTIVE, format::CF_STATES[0]);
    // Whatever was written before is durable with it.
    db.write_opt(batch, &synced()).map_err(failed)?;
    Ok(())
}

fn check_founders(membership: &Membership, given: usize) -> Result<(), GroupError> {
    let mut nodes: Vec<u32> = membership.members.values().map(|member| member.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    if nodes.len() != given || membership.members.len() != given {
        return Err(GroupError::Config(
            "every member needs a node and a raft id of its own".into(),
        ));
    }
    if given > limits::VOTERS_MAX {
        let message = format!("{given} members; at most {} vote", limits::VOTERS_MAX);
        return Err(GroupError::Config(message));
    }
    Ok(())
}

impl RocksStore {
    /// Opens this node's replica. A folder that was never formatted is made, and has no raft id until
    /// the leader gives it one.
    pub fn open(
        data_dir: &Path,
        group: GroupId,
        node: u32,
        address: &str,
        cache_bytes: usize,
        metrics: GroupMetrics,
    ) -> Result<Self, GroupError> {
        let folder = format::group_folder(data_dir, group);
        let (db, cache) = open_database(&folder, cache_bytes)?;
        let records = Records { db: &db, folder: &folder };
        let identity = records.identity(group, node)?;
        let active = match records.get(format::ACTIVE)? {
            Some(name) => format::CF_STATES.iter().position(|state| state.as_bytes() == name),
            None => Some(0),
        };
        let active = active.ok_or_else(|| records.damaged("active"))?;
        let (log, hard) = records.log()?;
        let conf = records.raft_message::<ConfState>(format::CONF)?;
        let membership = match records.get(format::MEMBERS)? {
            Some(bytes) => Membership::decode(&bytes).map_err(|_| records.damaged("members"))?,
            None => Membership::default(),
        };
        let applied = records.number(format::APPLIED)?;
        if applied > hard.commit || hard.commit > log.last() || applied < log.first() - 1 {
            return Err(records.damaged("applied"));
        }
        let reader = StateReader::new(&db, active, &folder, cache);
        let pins = Pins::new(random(), folder.clone());
        let address = address.to_owned();
        let store = Self {
            db,
            folder,
            identity,
            log,
            hard,
            conf,
            membership,
            applied,
            reader,
            pins,
            address,
            metrics,
        };
        // What a crash left of an unfinished install is of no use.
        let spare = store.cf(store.spare());
        let left = store.db.iterator_cf(&spare, IteratorMode::Start).next().is_some();
        drop(spare);
        if left {
            store.empty_spare();
        }
        Ok(store)
    }
}

/// The records of the `raft` column family, parsed once at open.
struct Records<'a> {
    db: &'a DB,
    folder: &'a Path,
}

impl Records<'_> {
    fn damaged(&self, record: &str) -> GroupError {
        GroupError::Damaged { folder: self.folder.to_path_buf(), record: record.into() }
    }

    fn failed(&self, source: rocksdb::Error) -> GroupError {
        GroupError::Open { folder: self.folder.to_path_buf(), source }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, GroupError> {
        let raft = self.db.cf_handle(format::CF_RAFT).expect("made at open");
        self.db.get_cf(&raft, key).map_err(|source| self.failed(source))
    }

    fn number(&self, key: &[u8]) -> Result<u64, GroupError> {
        let Some(bytes) = self.get(key)? else { return Ok(0) };
        let bytes = bytes.try_into().map_err(|_| self.damaged("applied"))?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn raft_message<M: prost011::Message + Default>(&self, key: &[u8]) -> Result<M, GroupError> {
        let Some(bytes) = self.get(key)? else { return Ok(M::default()) };
        let name = String::from_utf8_lossy(key);
        M::decode(bytes.as_slice()).map_err(|_| self.damaged(&name))
    }

    /// The folder's owner, which must be as expected; written now if the folder is new.
    fn identity(&self, group: GroupId, node: u32) -> Result<Identity, GroupError> {
        if let Some(bytes) = self.get(format::IDENTITY)? {
            let found = Identity::decode(bytes.as_slice()).map_err(|_| self.damaged("identity"))?;
            let folder = self.folder.to_path_buf();
            if !(FIRST_FORMAT..=FORMAT).contains(&found.format) {
                let (found, known) = (found.format, FORMAT);
                return Err(GroupError::UnknownFormat { folder, found, known });
            }
            if (found.group, found.node) != (group.0, node) {
                let found = format!("group {} of node {}", found.group, found.node);
                let wanted = format!("group {group} of node {node}");
                return Err(GroupError::WrongOwner { folder, found, wanted });
            }
            return Ok(found);
        }
        let identity = Identity {
            format: FIRST_FORMAT,
            group: group.0,
            node,
            raft_id: 0,
            incarnation: random(),
        };
        let raft = self.db.cf_handle(format::CF_RAFT).expect("made at open");
        let bytes = identity.encode_to_vec();
        let written = self.db.put_cf_opt(&raft, format::IDENTITY, bytes, &synced());
        written.map_err(|source| self.failed(source))?;
        Ok(identity)
    }

    fn log(&self) -> Result<(LogShape, HardState), GroupError> {
        let truncated = match self.get(format::TRUNCATED)? {
            Some(bytes) => format::parse_pair(&bytes).ok_or_else(|| self.damaged("truncated"))?,
            None => (0, 0),
        };
        let mut log = LogShape::cached(truncated);
        let raft = self.db.cf_handle(format::CF_RAFT).expect("made at open");
        let first = format::log_key(log.first());
        for pair in self.db.iterator_cf(&raft, IteratorMode::From(&first, Direction::Forward)) {
            let (key, value) = pair.map_err(|source| self.failed(source))?;
            if *key != format::log_key(log.last() + 1) {
                if key.starts_with(&first[..4]) {
                    return Err(self.damaged("log"));
                }
                break;
            }
            let entry = Entry::decode(&*value).map_err(|_| self.damaged("log"))?;
            if entry.index != log.last() + 1 {
                return Err(self.damaged("log"));
            }
            log.push(entry);
        }
        Ok((log, self.raft_message(format::HARD)?))
    }
}

fn open_database(folder: &Path, cache_bytes: usize) -> Result<(Arc<DB>, Cache), GroupError> {
    fs::create_dir_all(folder)
        .map_err(|source| GroupError::Folder { folder: folder.to_path_buf(), source })?;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // An incomplete end of the write-ahead log is what a crash leaves of unsynced batches, and a hole near
    // it what it leaves of a sync: both are dropped. Damage anywhere else took away what was synced: votes
    // and entries that others rely on. Point-in-time recovery would hide it; the folder must not open, and
    // an empty one in its place gets everything from the leader.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    options.set_max_total_wal_size(256 << 20);
    let cache = Cache::new_lru_cache(cache_bytes);
    let open = |options: &Options| DB::open_cf_descriptors(options, folder, families(&cache));
    let is_torn = |error: &rocksdb::Error| {
        error.kind() == ErrorKind::Corruption
            && torn_log::is_torn(folder, limits::SYNC_BYTES_MAX).unwrap_or(false)
    };
    let db = open(&options).or_else(|error| {
        if !is_torn(&error) {
            return Err(error);
        }
        tracing::warn!(folder = %folder.display(), %error, "the log was cut off in a sync: its end is dropped");
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        open(&options)
    });
    let db = db.map_err(|source| GroupError::Open { folder: folder.to_path_buf(), source })?;
    Ok((Arc::new(db), cache))
}

fn families(cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    let mut log_options = table_options(cache);
    // Log entries are short-lived: most are deleted before they would be compressed twice.
    log_options.set_compression_type(DBCompressionType::None);
    let mut families = vec![ColumnFamilyDescriptor::new(format::CF_RAFT, log_options)];
    for name in format::CF_STATES {
        families.push(ColumnFamilyDescriptor::new(name, state_options(cache)));
    }
    families
}

/// Of so many rows in a row.
const DELETED_WINDOW: usize = 4_096;

pub(super) fn state_options(cache: &Cache) -> Options {
    let mut options = table_options(cache);
    options.set_compression_type(DBCompressionType::Lz4);
    // What was removed is passed over by each scan until a compaction. A folder of a million files that is emptied
    // leaves as many such marks in a row: files of the store that are full of them are compacted soon.
    options.add_compact_on_deletion_collector_factory(DELETED_WINDOW, DELETED_WINDOW / 2, 0.5);
    options
}

fn table_options(cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(16 << 10);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_cache_index_and_filter_blocks(true);
    // In small pieces: a whole filter of a large file is a megabyte, and would be read again for each key once the
    // files' filters do not fit the cache together.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_pin_top_level_index_and_filter(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(32 << 20);
    options
}

pub(super) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// For incarnations and snapshot ids, which have to differ, not to be secret.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    match read {
        Ok(()) => u64::from_le_bytes(bytes) | 1,
        // A process without the device still has the hasher's keys.
        Err(_) => {
            use std::hash::{BuildHasher as _, RandomState};
            RandomState::new().hash_one(std::process::id()) | 1
        }
    }
}
