//! Reads beside updates of the same chunk: each sees one version, whole.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use super::*;

const UPDATES: u64 = 400;
const READERS: u64 = 4;

/// Overwrites, appends, holes, shortening and removal, one after the other on a small chunk, so
/// that freed blocks, young holes and patches meet reads in progress.
fn step(version: u64) -> Pending {
    let sector = |number: u64| (number % 40 * 4096) as u32;
    match version % 10 {
        0 => truncate(version, sector(version / 10) + 77),
        1 => truncate(version, 163_840),
        2 => write(version, sector(version / 7), pattern(version, 4096)),
        3 => write(version, 0, pattern(version, 163_840)),
        4 if version % 50 == 4 => update(version, PendingKind::Remove),
        4 | 5 => write(version, sector(version / 3) + 100, pattern(version, 10_000)),
        _ => write(version, sector(version), pattern(version, 8192)),
    }
}

fn after(mut content: Vec<u8>, pending: &Pending) -> Vec<u8> {
    match pending.kind {
        PendingKind::Truncate => content.resize(pending.length as usize, 0),
        PendingKind::Remove => content.clear(),
        PendingKind::Write | PendingKind::Replace => {
            let from = pending.offset as usize;
            let to = from + pending.payload.len();
            content.resize(content.len().max(to), 0);
            content[from..to].copy_from_slice(&pending.payload);
        }
    }
    content
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_read_sees_one_version() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 4 << 20).await;
    let versions: Arc<Mutex<BTreeMap<u64, Vec<u8>>>> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..READERS)
        .map(|reader| {
            let (engine, versions, done) = (engine.clone(), versions.clone(), done.clone());
            tokio::spawn(async move {
                let mut reads = 0u64;
                while !done.load(Ordering::Acquire) {
                    let which = if reader == 0 { Which::Pending } else { Which::Committed };
                    let buf = Buf::unpooled(200_000);
                    let offset = (reader * 5000) as u32;
                    match engine
                        .read(TARGET, chunk(0), which, offset, 190_000, Check::Here, buf)
                        .await
                    {
                        Ok((buf, readout)) => {
                            let version = readout.version.0;
                            let mut expected = versions.lock()[&version].clone();
                            assert_eq!(expected.len(), readout.chunk_length as usize);
                            expected.resize(200_000 + offset as usize, 0);
                            let expected = &expected[offset as usize..][..190_000];
                            assert!(buf[..] == *expected, "version {version} is mixed");
                            reads += 1;
                        }
                        Err(error) => assert_eq!(error.code, Code::NotFound, "{error}"),
                    }
                    tokio::task::yield_now().await;
                }
                reads
            })
        })
        .collect();
    let mut content = Vec::new();
    for version in 1..=UPDATES {
        let pending = step(version);
        let next = after(content.clone(), &pending);
        versions.lock().insert(version, next.clone());
        engine.prepare(TARGET, chunk(0), pending).await.unwrap();
        if version % 13 == 5 {
            engine.abort(TARGET, chunk(0)).await.unwrap();
            continue;
        }
        engine.commit(TARGET, chunk(0), ChunkVersion(version), ChainVersion(1)).await.unwrap();
        content = next;
        if version % 9 == 0 {
            engine.core().write_back().await.unwrap();
        }
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        assert!(reader.await.unwrap() > 10, "the readers worked");
    }
    assert_eq!(engine.stats().corrupt_sectors, 0);
    engine.shutdown().await;
}
