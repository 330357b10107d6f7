//! The order of things, forced: what is old stays until nothing can need it any more.

use super::{crash::copy, *};

const PIECE: usize = 256 << 10;

/// A use that began before a commit keeps what the commit freed, patched or made a hole of.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_reader_uses_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    engine.running.stop.cancel(); // Only this test writes back.
    let core = engine.core();
    apply(&engine, chunk(0), write(1, 0, pattern(1, 4 * PIECE))).await;
    core.sync_index().await.unwrap();
    let used = engine.space().used_bytes;
    let reader = core::Use::begin(core, &mut core.ledger.lock());
    // A rewrite, a patch and a hole.
    apply(&engine, chunk(0), write(2, 0, pattern(2, PIECE))).await;
    apply(&engine, chunk(0), write(3, PIECE as u32, pattern(3, 4096))).await;
    apply(&engine, chunk(0), truncate(4, 3 * PIECE as u32 + 4096)).await;
    core.sync_index().await.unwrap();
    assert_eq!(engine.space().used_bytes, used + PIECE as u64, "the old block is kept");
    assert_eq!(core.write_back().await.unwrap(), 0, "the old sector is kept");
    let before = engine.stats().disk.write_bytes;
    apply(&engine, chunk(0), write(5, 3 * PIECE as u32 + 4096, pattern(5, 8192))).await;
    assert_eq!(engine.stats().disk.write_bytes, before, "the young hole is not filled");
    drop(reader);
    core.sync_index().await.unwrap();
    assert_eq!(engine.space().used_bytes, used);
    assert_eq!(core.write_back().await.unwrap(), 3);
    apply(&engine, chunk(0), write(6, 3 * PIECE as u32 + 16_384, pattern(6, 8192))).await;
    assert_eq!(engine.stats().disk.write_bytes, before + 3 * 4096 + 8192, "now holes are filled");
    engine.shutdown().await;
}

/// A commit that a crash undoes finds its old block untouched.
#[tokio::test(flavor = "multi_thread")]
async fn a_freed_block_is_not_used_before_its_commit_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    // Room for six pieces of which a write may take five (the reserve).
    let engine = fresh(&live, 7 * PIECE as u64).await;
    let mut chunks = 0;
    while engine.prepare(TARGET, chunk(chunks), write(1, 0, pattern(1, PIECE))).await.is_ok() {
        engine.commit(TARGET, chunk(chunks), ChunkVersion(1), ChainVersion(1)).await.unwrap();
        chunks += 1;
    }
    apply(&engine, chunk(0), update(2, PendingKind::Remove)).await;
    engine.core().sync_index().await.unwrap();
    engine.prepare(TARGET, chunk(1), write(2, 0, pattern(2, PIECE))).await.unwrap();
    engine.commit(TARGET, chunk(1), ChunkVersion(2), ChainVersion(1)).await.unwrap();
    // The only block left is the one just freed. The new content reaches it, then power is cut.
    ff2_daemon::fault::arm("storage.engine.index=error(DISK_FAILED):1").unwrap();
    let cut = engine.prepare(TARGET, chunk(9), write(1, 0, pattern(9, PIECE))).await;
    assert_eq!(cut.unwrap_err().code, Code::DiskFailed);
    ff2_daemon::fault::disarm_all();
    let to = dir.path().join("copy");
    copy(&engine, &live, &to, 0);
    let copied = open(&to);
    for found in copied.load(TARGET).await.unwrap() {
        let version = found.committed.as_ref().map_or(0, |known| known.version.0);
        let (content, _) = whole(&copied, found.chunk, Which::Committed).await;
        assert!(content == pattern(version, PIECE)[..], "{} at {version}", found.chunk);
    }
    copied.shutdown().await;
    engine.shutdown().await;
}

/// A patch goes only when its sector is durable in its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_patch_outlives_a_power_cut_during_its_move() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let engine = fresh(&live, 16 << 20).await;
    engine.running.stop.cancel(); // Only this test writes back.
    engine.core().disk.unsynced.watch();
    apply(&engine, chunk(0), write(1, 0, pattern(1, PIECE))).await;
    apply(&engine, chunk(0), write(2, 8192, pattern(2, 4096))).await;
    let mut expected = pattern(1, PIECE).to_vec();
    expected[8192..12_288].copy_from_slice(&pattern(2, 4096));
    let check = async |name: &str| {
        let to = dir.path().join(name);
        // Everything that no sync covers is lost.
        copy(&engine, &live, &to, 2);
        let copied = open(&to);
        if let Some(pending) = &copied.load(TARGET).await.unwrap()[0].pending {
            let version = pending.version;
            copied.commit(TARGET, chunk(0), version, ChainVersion(1)).await.unwrap();
        }
        assert!(whole(&copied, chunk(0), Which::Committed).await.0 == expected, "{name}");
        copied.shutdown().await;
    };
    check("before").await;
    ff2_daemon::fault::arm("storage.engine.write_back_index=error(DISK_FAILED):1").unwrap();
    let cut = engine.core().write_back().await;
    ff2_daemon::fault::disarm_all();
    check("between").await;
    assert!(cut.is_err() && engine.core().write_back().await.unwrap() == 1);
    engine.core().sync_index().await.unwrap();
    check("after").await;
    assert_eq!(engine.stats().patches, 0);
    engine.shutdown().await;
}
