//! Crashes at random points: a process that is killed, and a folder that is copied while work goes on.
//!
//! In both, every prepare that was answered must be there afterwards: committed, or pending and
//! complete. A copy of the folder lacks what the index had not synced, as after a power cut.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use super::*;

const CHUNKS: u32 = 6;
const CHILD: &str = "FF2_ENGINE_CRASH_CHILD";

/// Update number `version` of a chunk, the same in every run.
fn step(index: u32, version: u64) -> Pending {
    let seed = version.wrapping_mul(31).wrapping_add(index.into()).wrapping_mul(0x9e37_79b9);
    let offset = (seed >> 7) as u32 % (CHUNK - 70_000);
    let len = match seed % 5 {
        0 => 4096,
        1 => 100,
        2 => 65_000,
        3 => 20_000,
        _ => 9000,
    };
    match seed % 11 {
        0 => truncate(version, offset),
        1 | 2 => write(version, offset & !4095, pattern(seed, 4096)),
        _ => write(version, offset, pattern(seed, len)),
    }
}

fn content(index: u32, version: u64) -> Vec<u8> {
    let mut content = Vec::new();
    for version in 1..=version {
        let pending = step(index, version);
        if pending.kind == PendingKind::Truncate {
            content.resize(pending.length as usize, 0);
            continue;
        }
        let (from, to) = (pending.offset as usize, pending.offset as usize + pending.payload.len());
        content.resize(content.len().max(to), 0);
        content[from..to].copy_from_slice(&pending.payload);
    }
    content
}

/// Updates one chunk for ever; tells of each prepare that was answered.
async fn updates(engine: Engine, index: u32, first: u64, tell: impl Fn(u32, u64)) {
    for version in first.. {
        if engine.prepare(TARGET, chunk(index), step(index, version)).await.is_err() {
            return;
        }
        tell(index, version);
        let version = ChunkVersion(version);
        if engine.commit(TARGET, chunk(index), version, ChainVersion(1)).await.is_err() {
            return;
        }
    }
}

/// Everything that was told is there. Commits what is pending; returns the versions.
async fn check(engine: &Engine, told: &BTreeMap<u32, u64>) -> BTreeMap<u32, u64> {
    let mut versions = BTreeMap::new();
    for found in engine.load(TARGET).await.unwrap() {
        let index = found.chunk.index;
        let committed = found.committed.as_ref().map_or(0, |known| known.version.0);
        if committed > 0 {
            let (bytes, _) = whole(engine, found.chunk, Which::Committed).await;
            assert!(bytes == content(index, committed), "chunk {index} at {committed}");
        }
        let mut newest = committed;
        if let Some(pending) = &found.pending {
            newest = pending.version.0;
            assert_eq!(newest, committed + 1);
            let (bytes, _) = whole(engine, found.chunk, Which::Pending).await;
            assert!(bytes == content(index, newest), "chunk {index}, pending {newest}");
            // Half of them as the chain may decide.
            if index % 2 == 0 {
                let version = ChunkVersion(newest);
                engine.commit(TARGET, found.chunk, version, ChainVersion(1)).await.unwrap();
            } else {
                engine.abort(TARGET, found.chunk).await.unwrap();
            }
        }
        let told = told.get(&index).copied().unwrap_or(0);
        assert!(newest >= told, "chunk {index}: {told} was acknowledged, {newest} is there");
        let now = if index % 2 == 0 { newest } else { committed };
        if now > 0 {
            let (bytes, _) = whole(engine, found.chunk, Which::Committed).await;
            assert!(bytes == content(index, now), "chunk {index} decided at {now}");
        }
        versions.insert(index, now);
    }
    for (index, told) in told {
        assert!(*told == 0 || versions.contains_key(index), "chunk {index} is gone");
    }
    versions
}

/// The process that is killed: runs only when the test below starts it.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let engine = open(Path::new(&dir));
    let versions = check(&engine, &BTreeMap::new()).await;
    let tasks: Vec<_> = (0..CHUNKS)
        .map(|index| {
            let first = versions.get(&index).copied().unwrap_or(0) + 1;
            tokio::spawn(updates(engine.clone(), index, first, |index, version| {
                println!("told {index} {version}");
            }))
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_told() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        fresh(dir.path(), 64 << 20).await.shutdown().await;
    });
    for round in 0..5u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "engine::tests::crash::child_that_is_killed", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = BTreeMap::new();
        let mut count = 0;
        for line in lines.map_while(Result::ok) {
            let Some(rest) = line.strip_prefix("told ") else { continue };
            let (index, version) = rest.split_once(' ').unwrap();
            told.insert(index.parse().unwrap(), version.parse().unwrap());
            count += 1;
            if count == 150 + round * 37 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(count >= 150, "the child worked");
        runtime.block_on(async {
            let engine = open(dir.path());
            check(&engine, &told).await;
            drop_without_stop(engine).await;
        });
    }
}

/// Copies the index first and the data after it, while no batch reaches the index: what the
/// copy holds of the index is what was synced or written out, and the data may be ahead of it.
/// Data that no sync covered is lost in part, sector by sector, as in a power cut.
pub(super) fn copy(engine: &Engine, from: &Path, to: &Path, seed: u64) {
    let _no_batches = engine.core().ledger.lock();
    std::fs::create_dir_all(to.join("index")).unwrap();
    loop {
        let names = |dir: &Path| -> Vec<_> {
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        let before = names(&from.join("index"));
        let copied = before.iter().filter(|name| *name != "LOCK").all(|name| {
            std::fs::copy(from.join("index").join(name), to.join("index").join(name)).is_ok()
        });
        if copied && names(&from.join("index")) == before {
            break;
        }
        std::fs::remove_dir_all(to.join("index")).unwrap();
        std::fs::create_dir_all(to.join("index")).unwrap();
    }
    let copy_data = || {
        let status = Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .args([from.join("data"), to.join("data")])
            .status();
        assert!(status.unwrap().success());
    };
    let mut random = seed;
    let lost = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        // None, some or all of what no sync covers.
        (random >> 40) % 2 < seed % 3
    };
    engine.core().disk.unsynced.cut(&to.join("data"), copy_data, lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_copy_taken_at_any_point_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(&dir.path().join("live"), 48 << 20).await;
    engine.core().disk.unsynced.watch();
    let told = Arc::new(Mutex::new(BTreeMap::new()));
    let tasks: Vec<_> = (0..CHUNKS)
        .map(|index| {
            let told = told.clone();
            let tell = move |index, version| {
                told.lock().insert(index, version);
            };
            tokio::spawn(updates(engine.clone(), index, 1, tell))
        })
        .collect();
    for round in 0..9u64 {
        tokio::time::sleep(Duration::from_millis(80 + round * 31)).await;
        let to = dir.path().join(format!("copy{round}"));
        let told_before = told.lock().clone();
        tokio::task::block_in_place(|| copy(&engine, &dir.path().join("live"), &to, round));
        let copied = open(&to);
        check(&copied, &told_before).await;
        drop_without_stop(copied).await;
        // What was dropped may still be ending its files, for which nobody waits after a crash.
        for _ in 0..200 {
            if std::fs::remove_dir_all(&to).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!to.exists());
    }
    engine.shutdown().await;
    for task in tasks {
        task.await.unwrap();
    }
    assert!(told.lock().values().sum::<u64>() > 50, "{told:?}");
}

/// Else a member that comes back first commits what its chain had dropped, and that was removed since.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_aborted_version_is_gone_after_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(&dir.path().join("live"), 48 << 20).await;
    engine.core().disk.unsynced.watch();
    for index in [0, 1] {
        engine.prepare(TARGET, chunk(index), step(index, 1)).await.unwrap();
    }
    engine.abort(TARGET, chunk(0)).await.unwrap();
    let to = dir.path().join("copy");
    tokio::task::block_in_place(|| copy(&engine, &dir.path().join("live"), &to, 0));
    let copied = open(&to);
    let found = copied.load(TARGET).await.unwrap();
    assert_eq!(found.iter().map(|found| found.chunk).collect::<Vec<_>>(), [chunk(1)]);
    drop_without_stop(copied).await;
    engine.shutdown().await;
}
