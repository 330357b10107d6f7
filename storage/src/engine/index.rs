//! The index of one disk: a RocksDB whose log is synced by the engine, never by a single batch.
//!
//! Rows are those of [`ff2_storage_core::format`]. Batches go to the log's buffer in memory and
//! become durable, all at once, with [`Index::sync`].

use std::{ops::ControlFlow, path::Path, sync::Arc};

use ff2_daemon::torn_log;
use ff2_proto::{Status, TargetId, pb, status::Code};
use ff2_storage_core::format::{BadFormat, Key, Piece, decode};
use prost::Message;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBRecoveryMode, ErrorKind, Options, ReadOptions, WriteBatch,
    WriteOptions,
    statistics::{StatsLevel, Ticker},
};

use super::{LocalChunk, limits};

/// What all indexes of a process share.
#[derive(Clone)]
pub struct SharedIndex {
    cache: Cache,
}

impl SharedIndex {
    pub fn new(cache_bytes: usize) -> Self {
        Self { cache: Cache::new_lru_cache(cache_bytes) }
    }
}

impl Default for SharedIndex {
    fn default() -> Self {
        Self::new(limits::INDEX_CACHE_BYTES)
    }
}

impl std::fmt::Debug for SharedIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedIndex({} bytes cached)", self.cache.get_usage())
    }
}

/// Bytes that an index wrote since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    pub log_bytes: u64,
    pub flush_bytes: u64,
    pub compaction_bytes: u64,
}

pub(super) struct Index {
    db: DB,
    options: Options,
    write: WriteOptions,
}

impl Index {
    pub(super) fn create(path: &Path, shared: &SharedIndex) -> Result<Self, Status> {
        Self::start(path, shared, true)
    }

    pub(super) fn open(path: &Path, shared: &SharedIndex) -> Result<Self, Status> {
        Self::start(path, shared, false)
    }

    fn start(path: &Path, shared: &SharedIndex, create: bool) -> Result<Self, Status> {
        let mut options = tuned(shared);
        options.create_if_missing(create);
        options.set_error_if_exists(create);
        let is_torn = |error: &rocksdb::Error| {
            error.kind() == ErrorKind::Corruption
                && torn_log::is_torn(path, limits::INDEX_SYNC_BYTES_MAX).unwrap_or(false)
        };
        let db = DB::open(&options, path).or_else(|error| {
            if !is_torn(&error) {
                return Err(error);
            }
            tracing::warn!(path = %path.display(), %error, "the index was cut off in a sync: its end is dropped");
            options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
            DB::open(&options, path)
        });
        let db = db.map_err(failure)?;
        let mut write = WriteOptions::default();
        write.set_sync(false);
        Ok(Self { db, options, write })
    }

    pub(super) fn record<M: Message + Default>(&self, key: &Key) -> Result<Option<M>, Status> {
        let value = self.db.get_pinned(key.encode()).map_err(failure)?;
        value.map(|value| parse(key, &value)).transpose()
    }

    pub(super) fn bytes(&self, key: &Key) -> Result<Option<Vec<u8>>, Status> {
        self.db.get(key.encode()).map_err(failure)
    }

    pub(super) fn piece(&self, of: LocalChunk, index: u16) -> Result<Option<Arc<Piece>>, Status> {
        let key = Key::Piece(of.target, of.chunk, index);
        let record: Option<pb::PieceRecord> = self.record(&key)?;
        record.map(|record| to_piece(&key, &record).map(Arc::new)).transpose()
    }

    /// Visits the rows of `from..to` in order until told to stop.
    pub(super) fn scan(
        &self,
        (from, to): (Vec<u8>, Vec<u8>),
        mut visit: impl FnMut(Key, &[u8]) -> Result<ControlFlow<()>, Status>,
    ) -> Result<(), Status> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mut rows = self.db.raw_iterator_opt(options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if visit(decode(key).map_err(bad_format)?, value)?.is_break() {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(failure)
    }

    /// Ordered after all earlier batches; durable with the next [`Index::sync`].
    pub(super) fn write(&self, changes: Changes) -> Result<(), Status> {
        self.db.write_opt(changes.batch, &self.write).map_err(failure)
    }

    pub(super) fn sync(&self) -> Result<(), Status> {
        self.db.flush_wal(true).map_err(failure)
    }

    pub(super) fn stats(&self) -> IndexStats {
        IndexStats {
            log_bytes: self.options.get_ticker_count(Ticker::WalFileBytes),
            flush_bytes: self.options.get_ticker_count(Ticker::FlushWriteBytes),
            compaction_bytes: self.options.get_ticker_count(Ticker::CompactWriteBytes),
        }
    }

    /// Before the last user goes: nothing of RocksDB may run when it is torn down.
    pub(super) fn stop(&self) {
        self.db.cancel_all_background_work(true);
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({})", self.db.path().display())
    }
}

fn tuned(shared: &SharedIndex) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&shared.cache);
    table.set_bloom_filter(10.0, false);
    table.set_block_size(8 << 10);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(limits::MEMTABLE_BYTES);
    options.set_max_write_buffer_number(limits::MEMTABLES_MAX);
    options.set_target_file_size_base(limits::INDEX_FILE_BYTES);
    options.set_max_bytes_for_level_base(4 * limits::INDEX_FILE_BYTES);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_max_background_jobs(limits::INDEX_BACKGROUND_JOBS);
    options.set_max_open_files(limits::INDEX_FILES_OPEN_MAX);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(rocksdb::LogLevel::Warn);
    // The engine decides when the log is written and synced.
    options.set_manual_wal_flush(true);
    // A crash leaves at most an incomplete batch at the log's end, of those that no sync covers, or a hole
    // in what a sync was about to write: both are dropped. A wrong checksum before it is damage to what was
    // synced; point-in-time recovery would silently take back all that was acknowledged since. Then the
    // disk must not open: its targets are resynced from other replicas.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    options
}

/// One batch: all of it or nothing survives a crash.
#[derive(Default)]
pub(super) struct Changes {
    batch: WriteBatch,
}

impl Changes {
    pub(super) fn put(&mut self, key: &Key, value: &[u8]) {
        self.batch.put(key.encode(), value);
    }

    pub(super) fn put_record(&mut self, key: &Key, record: &impl Message) {
        self.batch.put(key.encode(), record.encode_to_vec());
    }

    pub(super) fn put_piece(&mut self, of: LocalChunk, index: u16, piece: &Piece) {
        self.put_record(&Key::Piece(of.target, of.chunk, index), &piece.to_record());
    }

    pub(super) fn delete(&mut self, key: &Key) {
        self.batch.delete(key.encode());
    }

    /// A patch's row is put once and deleted once: both vanish when they meet in a memtable.
    pub(super) fn delete_patch(&mut self, of: LocalChunk, piece: u16, sector: u8, version: u64) {
        let key = Key::Patch(of.target, of.chunk, piece, sector, version);
        self.batch.single_delete(key.encode());
    }
}

pub(super) fn parse<M: Message + Default>(key: &Key, value: &[u8]) -> Result<M, Status> {
    M::decode(value).map_err(|error| {
        Status::new(Code::Corrupt, format!("the index row {key:?} cannot be read: {error}"))
    })
}

pub(super) fn to_piece(key: &Key, record: &pb::PieceRecord) -> Result<Piece, Status> {
    Piece::from_record(record)
        .map_err(|error| Status::new(Code::Corrupt, format!("the index row {key:?}: {error}")))
}

pub(super) fn bad_format(error: BadFormat) -> Status {
    Status::new(Code::Corrupt, error.to_string())
}

pub(super) fn no_such_target(target: TargetId) -> Status {
    Status::new(Code::NoSuchTarget, format!("target {target} is not on this disk"))
}

fn failure(error: rocksdb::Error) -> Status {
    let text = error.to_string();
    let code = match error.kind() {
        ErrorKind::IOError if text.contains("No space left") => Code::NoSpace,
        ErrorKind::Corruption => Code::Corrupt,
        _ => Code::DiskFailed,
    };
    Status::new(code, format!("index: {text}"))
}
