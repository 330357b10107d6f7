//! Disks that lie, fill up or fail.

use std::{fs::OpenOptions, os::unix::fs::FileExt};

use super::*;

/// Flips one byte of the data file and tells where blocks begin to matter.
fn flip(dir: &Path, position: u64) {
    let file = OpenOptions::new().read(true).write(true).open(dir.join("data")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], position).unwrap();
    file.sync_all().unwrap();
}

async fn position_of(engine: &Engine, at: ChunkId, piece: u16) -> u64 {
    let of = LocalChunk { target: TARGET, chunk: at };
    engine.core().index.piece(of, piece).unwrap().unwrap().block.position
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    let content = pattern(1, 600_000);
    apply(&engine, chunk(3), write(1, 0, content.clone())).await;
    let at = position_of(&engine, chunk(3), 1).await;
    flip(dir.path(), at + 2 * 4096 + 17);
    let read = |offset, len| {
        let engine = engine.clone();
        async move {
            let buf = Buf::unpooled(len as usize);
            engine.read(TARGET, chunk(3), Which::Committed, offset, len, Check::Here, buf).await
        }
    };
    let error = read(0, 600_000).await.unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    for part in ["chunk 42.3", "target 7", "piece 1", "sector 2"] {
        assert!(error.detail.contains(part), "{error}");
    }
    assert_eq!(read(262_144 + 8192, 1).await.unwrap_err().code, Code::Corrupt);
    // Who checks by himself is told what the bytes should be.
    for (offset, len) in [(262_144, 65_536), (262_144 + 8192, 1)] {
        let (which, buf) = (Which::Committed, Buf::unpooled(len as usize));
        let read = engine.read(TARGET, chunk(3), which, offset, len, Check::ByReader, buf).await;
        match read {
            Ok((buf, readout)) => {
                let written = &content[offset as usize..(offset + len) as usize];
                assert_eq!(readout.crc32c, Some(crc32c(written)));
                assert_ne!(crc32c(&buf), crc32c(written));
            }
            Err(error) => assert_eq!((error.code, len), (Code::Corrupt, 1)),
        }
    }
    let (buf, _) = read(262_144, 8192).await.expect("its neighbours are good");
    assert_eq!(buf[..], content[262_144..262_144 + 8192]);
    // A copy of the piece must not give the flipped bit a good checksum.
    let copy = engine.prepare(TARGET, chunk(3), write(2, 262_144 + 131_072, pattern(2, 65_536)));
    assert_eq!(copy.await.unwrap_err().code, Code::Corrupt);
    assert!(engine.stats().corrupt_sectors >= 3);
    // A replacement from another replica heals it.
    let length = content.len() as u32;
    let heal =
        Pending { payload: content.clone().into(), length, ..update(2, PendingKind::Replace) };
    apply(&engine, chunk(3), heal).await;
    assert_eq!(whole(&engine, chunk(3), Which::Committed).await.0, &content[..]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stays_readable_and_can_be_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 8 << 20).await;
    let mut written = 0;
    let error = loop {
        let pending = write(1, 0, pattern(written.into(), 300_000));
        match engine.prepare(TARGET, chunk(written), pending).await {
            Ok(_) => {
                let at = chunk(written);
                engine.commit(TARGET, at, ChunkVersion(1), ChainVersion(1)).await.unwrap();
                written += 1;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, Code::NoSpace);
    assert!(written >= 10, "{written} chunks of 512 KiB in 8 MiB");
    assert!(!engine.has_room());
    for index in 0..written {
        let (content, _) = whole(&engine, chunk(index), Which::Committed).await;
        assert_eq!(content, &pattern(index.into(), 300_000)[..]);
    }
    // Patches and shortening need no block.
    apply(&engine, chunk(0), write(2, 0, pattern(9, 4096))).await;
    apply(&engine, chunk(0), truncate(3, 5000)).await;
    for index in 0..written {
        apply(&engine, chunk(index), update(9, PendingKind::Remove)).await;
    }
    apply(&engine, chunk(0), write(1, 0, pattern(1, 1 << 20))).await;
    assert!(engine.has_room());
    assert_eq!(whole(&engine, chunk(0), Which::Committed).await.0, &pattern(1, 1 << 20)[..]);
    assert!(engine.stats().refused_for_space >= 1);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_a_read_still_uses_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 8 << 20).await;
    let (filled, _) = fill(&engine, 0, PendingKind::Write).await;
    let core = engine.core().clone();
    let long_read = crate::engine::core::Use::begin(&core, &mut core.ledger.lock());
    for index in 0..filled {
        apply(&engine, chunk(index), update(2, PendingKind::Remove)).await;
    }
    let late = engine.prepare(TARGET, chunk(0), write(1, 0, pattern(1, CHUNK as usize)));
    let end = async {
        tokio::time::sleep(4 * limits::RETIRED_WAIT).await;
        drop(long_read);
    };
    let (late, ()) = tokio::join!(late, end);
    late.expect("the space was only not free yet");
    engine.shutdown().await;
}

/// A small file system (tmpfs) under a larger sparse data file; `None` where mounting is not allowed.
struct SmallFileSystem(tempfile::TempDir);

impl SmallFileSystem {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let mounted = run(&["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path]);
        if !mounted {
            let allowed = std::env::var("FF2_TEST_ALLOW_SKIP").is_ok_and(|value| value == "1");
            let missing =
                "mounting a tmpfs is not allowed here: run as root in a namespace that may";
            assert!(allowed, "{missing}; FF2_TEST_ALLOW_SKIP=1 leaves this test out");
            eprintln!("skipped: {missing}");
        }
        mounted.then_some(Self(dir))
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        run(&["umount", "-l", self.0.path().to_str().unwrap()]);
    }
}

fn run(args: &[&str]) -> bool {
    let run = std::process::Command::new(args[0]).args(&args[1..]).output();
    run.is_ok_and(|output| output.status.success())
}

/// Chunks of 1 MiB until one is refused: how many there are, and the refusal.
async fn fill(engine: &Engine, first: u32, kind: PendingKind) -> (u32, Status) {
    for index in first.. {
        let payload = pattern(index.into(), CHUNK as usize);
        let payload = payload.into();
        let pending = Pending { payload, length: CHUNK, ..update(1, kind) };
        if let Err(error) = engine.prepare(TARGET, chunk(index), pending).await {
            return (index, error);
        }
        engine.commit(TARGET, chunk(index), ChunkVersion(1), ChainVersion(1)).await.unwrap();
    }
    unreachable!("every disk is full one day")
}

/// Real ENOSPC, by writes and then by a resync. Needs to be allowed to mount.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_system_is_no_space() {
    let Some(small) = SmallFileSystem::mount() else { return };
    let engine = fresh(&small.0.path().join("disk"), 1 << 30).await;
    let (written, error) = fill(&engine, 0, PendingKind::Write).await;
    assert_eq!(error.code, Code::NoSpace, "{error}");
    let (written, error) = fill(&engine, written, PendingKind::Replace).await;
    assert_eq!(error.code, Code::NoSpace, "{error}");
    assert!(written >= 16 && !engine.is_failed());
    let free = rustix::fs::statvfs(small.0.path()).unwrap();
    assert!(free.f_bavail * free.f_frsize >= 1 << 20, "room for the index is left");
    for index in 0..written {
        let (content, _) = whole(&engine, chunk(index), Which::Committed).await;
        assert!(content == pattern(index.into(), 1 << 20)[..]);
    }
    for index in 0..written {
        apply(&engine, chunk(index), update(2, PendingKind::Remove)).await;
    }
    engine.core().sync_index().await.unwrap();
    // Freed groups are punched out of the file: their space serves again.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    for index in 0..written / 2 {
        apply(&engine, chunk(index), write(1, 0, pattern(5, 1 << 20))).await;
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_freed_goes_back_to_the_file_system_when_the_disk_closes() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 1 << 30).await;
    for index in 0..24 {
        apply(&engine, chunk(index), write(1, 0, pattern(5, 1 << 20))).await;
    }
    for index in 0..24 {
        apply(&engine, chunk(index), update(2, PendingKind::Remove)).await;
    }
    engine.core().sync_index().await.unwrap();
    let bytes = || dir.path().join("data").metadata().unwrap().blocks() * 512;
    assert!(bytes() >= 24 << 20, "for a while it is kept for what is written next");
    engine.shutdown().await;
    assert!(bytes() <= 12 << 20, "{} bytes", bytes());
}

/// Many large updates at once see the same free space; together they must not take more than it.
#[tokio::test(flavor = "multi_thread")]
async fn updates_on_their_way_count_as_used() {
    let Some(small) = SmallFileSystem::mount() else { return };
    let engine = fresh(&small.0.path().join("disk"), 1 << 30).await;
    let mut all = tokio::task::JoinSet::new();
    for index in 0..200 {
        let engine = engine.clone();
        let payload = pattern(index.into(), 1 << 20);
        all.spawn(async move { engine.prepare(TARGET, chunk(index), write(1, 0, payload)).await });
    }
    let refused = all.join_all().await.into_iter().filter_map(Result::err);
    assert!(refused.map(|error| error.code).all(|code| code == Code::NoSpace));
    let free = rustix::fs::statvfs(small.0.path()).unwrap();
    assert!(free.f_bavail * free.f_frsize >= 1 << 20, "room for the index is left");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_index_refuses_updates_and_serves_reads() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    let content = pattern(1, 100_000);
    apply(&engine, chunk(0), write(1, 0, content.clone())).await;
    engine.core().break_index(&Status::new(Code::NoSpace, "full"));
    let refused = engine.prepare(TARGET, chunk(0), write(2, 0, pattern(2, 10))).await;
    assert_eq!(refused.unwrap_err().code, Code::NoSpace);
    assert!(!engine.is_failed(), "the target goes on serving");
    assert_eq!(whole(&engine, chunk(0), Which::Committed).await.0, &content[..]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_leaves_the_old_version_and_no_pending() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    let old = pattern(1, 300_000);
    apply(&engine, chunk(0), write(1, 0, old.clone())).await;
    for point in ["storage.engine.write", "storage.engine.index"] {
        ff2_daemon::fault::arm(&format!("{point}=error(DISK_FAILED):1")).unwrap();
        let failed = engine.prepare(TARGET, chunk(0), write(2, 0, pattern(2, 300_000))).await;
        assert_eq!(failed.unwrap_err().code, Code::DiskFailed, "{point}");
        assert_eq!(whole(&engine, chunk(0), Which::Committed).await.0, &old[..]);
        let new = engine.prepare(TARGET, chunk(9), write(1, 0, pattern(2, 10))).await;
        new.expect("the point fires once");
        engine.abort(TARGET, chunk(9)).await.unwrap();
    }
    ff2_daemon::fault::disarm_all();
    apply(&engine, chunk(0), write(2, 0, pattern(2, 300_000))).await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_one_disk_is_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    format(one.path(), 8 << 20);
    format(two.path(), 8 << 20);
    assert!(Engine::is_formatted(one.path()) && !Engine::is_formatted(&one.path().join("x")));
    let again = Engine::format(one.path(), &FormatOptions::default()).unwrap_err();
    assert_eq!(again.code, Code::Exists);
    let small = tempfile::tempdir().unwrap();
    let tiny = Engine::format(small.path(), &FormatOptions { size_bytes: Some(65_536) });
    assert_eq!(tiny.unwrap_err().code, Code::InvalidArgument);
    std::fs::copy(two.path().join("data"), one.path().join("data")).unwrap();
    let mixed = Engine::open(one.path(), EngineOptions::default()).unwrap_err();
    assert_eq!(mixed.code, Code::Corrupt);
    OpenOptions::new().write(true).open(two.path().join("data")).unwrap().set_len(4 << 20).unwrap();
    let cut = Engine::open(two.path(), EngineOptions::default()).unwrap_err();
    assert_eq!(cut.code, Code::Corrupt);
}

/// Updates that find no room for their patches hear why, and go on once patches find their place.
#[tokio::test(flavor = "multi_thread")]
async fn writers_do_not_wait_for_a_write_back_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    ff2_daemon::fault::arm("storage.engine.write_back=error(NO_SPACE)").unwrap();
    let chunks = (limits::PATCHES_MAX / (CHUNK / 4096) as usize) as u32;
    let mut fills = tokio::task::JoinSet::new();
    for index in 0..chunks {
        let engine = engine.clone();
        fills.spawn(async move {
            apply(&engine, chunk(index), write(1, 0, pattern(1, CHUNK as usize))).await;
            for part in 0..CHUNK / 32_768 {
                let patch = write(u64::from(part) + 2, part * 32_768, pattern(2, 32_768));
                apply(&engine, chunk(index), patch).await;
            }
        });
    }
    fills.join_all().await;
    assert_eq!(engine.stats().patches, limits::PATCHES_MAX as u64);
    let late = || engine.prepare(TARGET, chunk(0), write(90, 0, pattern(3, 4096)));
    let refused = tokio::time::timeout(std::time::Duration::from_secs(20), late());
    assert_eq!(refused.await.expect("it does not hang").unwrap_err().code, Code::NoSpace);
    // What leaves no patches needs no room for them.
    engine.prepare(TARGET, chunk(1), update(90, PendingKind::Remove)).await.unwrap();
    ff2_daemon::fault::disarm_all();
    while late().await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_half_made_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    // As a crash between the making of the index and its first row leaves it.
    super::super::index::Index::create(&dir.path().join("index.new"), &Default::default()).unwrap();
    assert!(!Engine::is_formatted(dir.path()));
    let engine = fresh(dir.path(), 8 << 20).await;
    assert!(!dir.path().join("index.new").exists());
    engine.shutdown().await;
}

/// The newest of the index's logs, with its content.
fn index_log(dir: &Path) -> (std::path::PathBuf, Vec<u8>) {
    let files = std::fs::read_dir(dir.join("index")).unwrap().map(|file| file.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let path = logs.max().expect("an index has a log");
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_of_the_index_is_dropped_and_damage_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    apply(&engine, chunk(0), write(1, 0, pattern(1, 300_000))).await;
    let middle = index_log(dir.path()).1.len() / 2;
    apply(&engine, chunk(0), write(2, 0, pattern(2, 300_000))).await;
    engine.prepare(TARGET, chunk(1), write(1, 0, pattern(3, 5_000))).await.unwrap();
    engine.shutdown().await;
    drop_without_stop(engine).await;
    let (log, bytes) = index_log(dir.path());
    let mut damaged = bytes.clone();
    damaged[middle] ^= 1;
    std::fs::write(&log, damaged).unwrap();
    let refused = Engine::open(dir.path(), EngineOptions::default()).unwrap_err();
    assert_eq!(refused.code, Code::Corrupt, "{refused}");
    // As if power went while the last batch was on its way.
    std::fs::write(&log, &bytes[..bytes.len() - 3]).unwrap();
    let engine = open(dir.path());
    assert_eq!(whole(&engine, chunk(0), Which::Committed).await.0, &pattern(2, 300_000)[..]);
    let found = engine.load(TARGET).await.unwrap();
    assert!(found.iter().all(|found| found.chunk != chunk(1)), "half a batch took effect");
    engine.shutdown().await;
}
