//! The engine against byte arrays: content, crashes, broken disks, and what it costs.

mod amplification;
mod clones;
mod concurrent;
mod crash;
mod faults;
mod model;
mod order;
mod paths;

use std::path::Path;

use ff2_fabric::buf::{Buf, SharedBuf};
use ff2_proto::{ChainId, ChainVersion, ChunkId, ChunkVersion, InodeId, TargetId};

use ff2_storage_core::format::{SECTOR, crc32c};

use super::*;
use crate::payload::Payload;

const CHUNK: u32 = 1 << 20;
const TARGET: TargetId = TargetId(7);

fn chunk(index: u32) -> ChunkId {
    ChunkId::new(InodeId(42), index)
}

fn meta() -> TargetMeta {
    TargetMeta { chain_version: ChainVersion(1), ..TargetMeta::new(TARGET, ChainId(1), 1) }
}

fn format(dir: &Path, size: u64) {
    Engine::format(dir, &FormatOptions { size_bytes: Some(size) }).unwrap();
}

fn open(dir: &Path) -> Engine {
    let open = || Engine::open(dir, EngineOptions::default());
    let is_locked = |status: &Status| status.detail.contains("lock hold by current process");
    // An index that is being dropped is locked a moment longer than its last reference lives.
    for _ in 0..200 {
        match open() {
            Err(status) if is_locked(&status) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
    open().unwrap()
}

async fn fresh(dir: &Path, size: u64) -> Engine {
    format(dir, size);
    let engine = open(dir);
    engine.create_target(meta()).await.unwrap();
    engine
}

/// Bytes that tell where they belong, in aligned memory.
fn pattern(seed: u64, len: usize) -> SharedBuf {
    let mut buf = Buf::unpooled(len);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for byte in buf.iter_mut() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    buf.freeze()
}

fn update(version: u64, kind: PendingKind) -> Pending {
    Pending {
        version: ChunkVersion(version),
        chain_version: ChainVersion(1),
        kind,
        offset: 0,
        payload: Payload::default(),
        chunk_size: CHUNK,
        tags: Vec::new(),
        length: 0,
        keeping: Default::default(),
    }
}

fn write(version: u64, offset: u32, payload: SharedBuf) -> Pending {
    Pending { offset, payload: Payload::at(offset, payload), ..update(version, PendingKind::Write) }
}

fn truncate(version: u64, length: u32) -> Pending {
    Pending { length, ..update(version, PendingKind::Truncate) }
}

async fn apply(engine: &Engine, at: ChunkId, pending: Pending) {
    let version = pending.version;
    let prepared = engine.prepare(TARGET, at, pending).await.unwrap();
    assert_eq!(prepared.version, version);
    engine.commit(TARGET, at, version, ChainVersion(1)).await.unwrap();
}

/// The whole of a version.
async fn whole(engine: &Engine, at: ChunkId, which: Which) -> (Vec<u8>, Readout) {
    let buf = Buf::unpooled(CHUNK as usize);
    let (buf, readout) = engine.read(TARGET, at, which, 0, CHUNK, Check::Here, buf).await.unwrap();
    let (content, rest) = buf.split_at(readout.chunk_length as usize);
    assert!(rest.iter().all(|byte| *byte == 0), "zeros beyond the chunk");
    (content.to_vec(), readout)
}

/// As a crash that keeps what the process wrote: nothing is flushed by us. Waits until the folder
/// can be opened again.
async fn drop_without_stop(engine: Engine) {
    let core = Arc::downgrade(engine.core());
    drop(engine);
    while core.strong_count() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}
