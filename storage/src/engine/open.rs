//! Making a disk, and opening one: the allocator and everything pending come back from the index.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    ops::ControlFlow,
    os::unix::fs::{FileExt, FileTypeExt},
    path::Path,
    sync::OnceLock,
};

use bytes::Bytes;
use ff2_fabric::buf::BufPool;
use ff2_proto::{Status, pb, status::Code};
use ff2_storage_core::{
    alloc::Allocator,
    format::{BLOCK_SIZE_MIN, Key, SECTOR, Superblock, crc32c, target_bounds},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::{
    EngineOptions, FormatOptions, LocalChunk,
    chunk::{Chunk, Patch, Patches, PendingState, Slot, committed},
    core::{Core, Counters, FileSystemSpace},
    index::{Changes, Index, bad_format, parse, to_piece},
    ledger::Ledger,
    limits,
    shards::Shards,
    syncer::Syncer,
    targets,
};
use crate::disk::Disk;

pub(super) const DATA: &str = "data";
pub(super) const INDEX: &str = "index";
/// An index that is being made.
const NEW_INDEX: &str = "index.new";

/// Smallest disk that makes sense.
const CAPACITY_MIN: u64 = 16 * BLOCK_SIZE_MIN as u64;

pub(super) fn format(dir: &Path, options: &FormatOptions) -> Result<(), Status> {
    fs::create_dir_all(dir).map_err(|error| cannot("create the folder", dir, &error))?;
    if dir.join(INDEX).exists() {
        let detail = format!("{} holds a disk already", dir.display());
        return Err(Status::new(Code::Exists, detail));
    }
    let path = dir.join(DATA);
    let capacity = make_data(&path, options).map_err(|error| cannot("make", &path, &error))?;
    if capacity < CAPACITY_MIN {
        let detail = format!("a disk has at least {CAPACITY_MIN} bytes, not {capacity}");
        return Err(Status::new(Code::InvalidArgument, detail));
    }
    let mut uuid = [0; 16];
    getrandom::fill(&mut uuid).map_err(|error| Status::new(Code::Internal, error.to_string()))?;
    let group_bytes_max = Allocator::group_bytes_for(capacity);
    let bytes = Superblock { uuid, capacity, group_bytes_max }.encode();
    let written = OpenOptions::new().write(true).open(&path).and_then(|data| {
        data.write_all_at(&bytes, 0)?;
        data.sync_all()
    });
    written.map_err(|error| cannot("write", &path, &error))?;
    // The index comes last, complete: its name is what makes the folder a disk.
    let new = dir.join(NEW_INDEX);
    if new.exists() {
        fs::remove_dir_all(&new).map_err(|error| cannot("remove", &new, &error))?;
    }
    {
        let index = Index::create(&new, &Default::default())?;
        let mut changes = Changes::default();
        changes.put(&Key::Superblock, &bytes);
        index.write(changes)?;
        index.sync()?;
    }
    fs::rename(&new, dir.join(INDEX)).map_err(|error| cannot("rename", &new, &error))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| cannot("sync", dir, &error))
}

/// A sparse file of the wanted size, unless something is there: then all of that.
fn make_data(path: &Path, options: &FormatOptions) -> io::Result<u64> {
    let existing = OpenOptions::new().read(true).write(true).open(path);
    let file = match existing {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            OpenOptions::new().read(true).write(true).create_new(true).open(path)?
        }
        Err(error) => return Err(error),
    };
    if file.metadata()?.file_type().is_block_device() {
        let size = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?;
        return Ok(options.size_bytes.map_or(size, |wanted| wanted.min(size)));
    }
    match options.size_bytes {
        Some(size) => {
            let size = size - size % u64::from(BLOCK_SIZE_MIN);
            file.set_len(size)?;
            Ok(size)
        }
        None => Ok(file.metadata()?.len()),
    }
}

pub(super) fn open(dir: &Path, options: EngineOptions) -> Result<Core, Status> {
    let index = Index::open(&dir.join(INDEX), &options.shared)?;
    let superblock = superblock(dir, &index)?;
    let data = dir.join(DATA);
    let disk = Disk::open(&data, options.depth, options.disk_thread)
        .map_err(|error| cannot("open", &data, &error))?;
    if disk.size() < superblock.capacity {
        let detail = format!("{} has lost its end: {} bytes", data.display(), disk.size());
        return Err(Status::new(Code::Corrupt, detail));
    }
    let mut allocator = Allocator::new(superblock.capacity, superblock.group_bytes_max);
    let found = Found::scan(&index, &mut allocator)?;
    let shards = Shards::new();
    let mut ledger = Ledger::new(allocator);
    for (of, chunk) in found.chunks {
        ledger.patches += chunk.patches.len();
        if !chunk.patches.is_empty() {
            ledger.dirty.insert(of);
        }
        shards.lock(of).insert(of, chunk);
    }
    let core = Core {
        dir: dir.to_owned(),
        disk,
        index,
        shards,
        ledger: Mutex::new(ledger),
        syncer: Syncer::default(),
        staging: BufPool::new(limits::STAGING_BYTES),
        targets: Mutex::new(found.targets),
        prepares: Semaphore::new(limits::PREPARES_MAX),
        sync_data: options.sync_data,
        counters: Counters::default(),
        patches_kick: Notify::new(),
        patches_room: Notify::new(),
        write_back_failure: Mutex::default(),
        broken: OnceLock::new(),
        file_system: Mutex::new(FileSystemSpace::default()),
        space: Mutex::default(),
    };
    // Before anything can hinder it.
    core.space();
    Ok(core)
}

/// The superblock, which data and index must agree on.
fn superblock(dir: &Path, index: &Index) -> Result<Superblock, Status> {
    let path = dir.join(DATA);
    let mut bytes = vec![0; SECTOR as usize];
    let read = File::open(&path).and_then(|data| data.read_exact_at(&mut bytes, 0));
    read.map_err(|error| cannot("read the superblock of", &path, &error))?;
    let superblock = Superblock::decode(&bytes).map_err(bad_format)?;
    if index.bytes(&Key::Superblock)?.as_deref() != Some(&bytes[..]) {
        let detail = format!("{}: data and index belong to different disks", dir.display());
        return Err(Status::new(Code::Corrupt, detail));
    }
    Ok(superblock)
}

/// What a scan of the whole index brings into memory.
#[derive(Default)]
struct Found {
    targets: BTreeMap<ff2_proto::TargetId, super::TargetMeta>,
    /// Those with patches or a pending version.
    chunks: Vec<(LocalChunk, Chunk)>,
}

/// The rows of one chunk, collected while they pass by.
#[derive(Default)]
struct Rows {
    of: Option<LocalChunk>,
    record: Option<pb::ChunkRecord>,
    /// Of all versions.
    patches: Vec<((u16, u8), Patch)>,
    pending: Option<pb::PendingRecord>,
}

impl Found {
    fn scan(index: &Index, allocator: &mut Allocator) -> Result<Self, Status> {
        let mut found = Self::default();
        index.scan((Key::Target(Default::default()).encode(), vec![b't' + 1]), |key, value| {
            let meta = targets::from_record(&parse(&key, value)?);
            found.targets.insert(meta.id, meta);
            Ok(ControlFlow::Continue(()))
        })?;
        let mut rows = Rows::default();
        index.scan(target_bounds(None), |key, value| {
            let of = match key {
                Key::Superblock | Key::Target(_) => return Ok(ControlFlow::Continue(())),
                Key::Chunk(target, chunk)
                | Key::Piece(target, chunk, _)
                | Key::Patch(target, chunk, _, _, _)
                | Key::Pending(target, chunk) => LocalChunk { target, chunk },
            };
            if rows.of != Some(of) {
                found.take(std::mem::take(&mut rows))?;
                rows.of = Some(of);
            }
            rows.add(&key, value, allocator)?;
            Ok(ControlFlow::Continue(()))
        })?;
        found.take(rows)?;
        Ok(found)
    }

    fn take(&mut self, rows: Rows) -> Result<(), Status> {
        let Some(of) = rows.of else { return Ok(()) };
        if let Some(chunk) = rows.into_chunk(of)? {
            self.chunks.push((of, chunk));
        }
        Ok(())
    }
}

impl Rows {
    fn add(&mut self, key: &Key, value: &[u8], allocator: &mut Allocator) -> Result<(), Status> {
        match *key {
            Key::Superblock | Key::Target(_) => {}
            Key::Chunk(..) => self.record = Some(parse(key, value)?),
            Key::Piece(..) => {
                let piece = to_piece(key, &parse(key, value)?)?;
                allocator.mark(piece.block).map_err(bad_format)?;
            }
            Key::Patch(_, _, piece, sector, version) => {
                if value.len() != SECTOR as usize {
                    let detail = format!("the index row {key:?} has {} bytes", value.len());
                    return Err(Status::new(Code::Corrupt, detail));
                }
                let bytes = Bytes::copy_from_slice(value);
                let patch = Patch { version, batch: 0, crc: crc32c(&bytes), bytes };
                self.patches.push(((piece, sector), patch));
            }
            Key::Pending(..) => {
                let record: pb::PendingRecord = parse(key, value)?;
                for piece in record.pieces.iter().filter_map(|piece| piece.replaced.as_ref()) {
                    allocator.mark(to_piece(key, piece)?.block).map_err(bad_format)?;
                }
                self.pending = Some(record);
            }
        }
        Ok(())
    }

    /// None for a chunk that need not stay in memory.
    fn into_chunk(self, of: LocalChunk) -> Result<Option<Chunk>, Status> {
        if self.patches.is_empty() && self.pending.is_none() {
            return Ok(None);
        }
        // A replacement or removal has no patches, and perhaps the version of a committed one.
        let patching = self.pending.as_ref().filter(|record| !record.patches.is_empty());
        let pending_version = patching.map(|record| record.version);
        let is_pending = |patch: &Patch| Some(patch.version) == pending_version;
        let (pending, old): (Vec<_>, Vec<_>) =
            self.patches.into_iter().partition(|(_, patch)| is_pending(patch));
        // Rows come in order of version, so a newer one wins.
        let patches: Patches = old.into_iter().collect();
        let slot = match self.pending {
            None => Slot::Free,
            Some(record) => {
                let key = Key::Pending(of.target, of.chunk);
                let pending = pending.into_iter().collect();
                Slot::Prepared(Box::new(PendingState::from_record(&key, &record, pending)?))
            }
        };
        let committed = self.record.as_ref().map(committed);
        Ok(Some(Chunk::recovered(committed, patches, slot)))
    }
}

fn cannot(verb: &str, path: &Path, error: &io::Error) -> Status {
    let code = match error.raw_os_error() {
        Some(libc::ENOSPC) => Code::NoSpace,
        Some(libc::EIO) => Code::DiskFailed,
        _ => Code::InvalidArgument,
    };
    Status::new(code, format!("{verb} {}: {error}", path.display()))
}
