//! One test for each way that an update can take, and for the calls around them.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_version_is_beside_the_committed_one() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    let (old, new) = (pattern(1, 300_000), pattern(2, 300_000));
    apply(&engine, chunk(0), write(1, 0, old.clone())).await;
    engine.prepare(TARGET, chunk(0), write(2, 0, new.clone())).await.unwrap();
    assert_eq!(whole(&engine, chunk(0), Which::Committed).await.0, &old[..]);
    assert_eq!(whole(&engine, chunk(0), Which::Pending).await.0, &new[..]);
    let twice = engine.prepare(TARGET, chunk(0), write(3, 0, new.clone())).await.unwrap_err();
    assert_eq!(twice.code, Code::Busy);
    engine.commit(TARGET, chunk(0), ChunkVersion(2), ChainVersion(5)).await.unwrap();
    let (content, readout) = whole(&engine, chunk(0), Which::Committed).await;
    assert_eq!(content, &new[..]);
    assert_eq!((readout.version.0, readout.chain_version.0), (2, 5));
    engine.commit(TARGET, chunk(0), ChunkVersion(2), ChainVersion(5)).await.unwrap();
    let buf = Buf::unpooled(1);
    let none =
        engine.read(TARGET, chunk(0), Which::Pending, 0, 1, Check::Here, buf).await.unwrap_err();
    assert_eq!(none.code, Code::NotFound);
    let old = engine.prepare(TARGET, chunk(0), write(2, 0, new)).await.unwrap_err();
    assert_eq!(old.code, Code::StaleUpdate);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_version_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    let old = pattern(1, 100_000);
    apply(&engine, chunk(0), write(1, 0, old.clone())).await;
    let used = engine.space().used_bytes;
    for (offset, len) in [(0, 1 << 20), (4096, 4096), (100_000, 50_000), (131_072, 4096)] {
        engine.prepare(TARGET, chunk(0), write(2, offset, pattern(2, len))).await.unwrap();
        engine.abort(TARGET, chunk(0)).await.unwrap();
        engine.abort(TARGET, chunk(0)).await.unwrap();
        assert_eq!(whole(&engine, chunk(0), Which::Committed).await.0, &old[..]);
    }
    engine.prepare(TARGET, chunk(1), write(1, 0, pattern(3, 10))).await.unwrap();
    engine.abort(TARGET, chunk(1)).await.unwrap();
    let buf = Buf::unpooled(1);
    let gone =
        engine.read(TARGET, chunk(1), Which::Committed, 0, 1, Check::Here, buf).await.unwrap_err();
    assert_eq!(gone.code, Code::NotFound);
    engine.core().sync_index().await.unwrap();
    assert_eq!(engine.space().used_bytes, used);
    assert_eq!(engine.stats().patches, 0);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_and_shortened_chunks_read_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    apply(&engine, chunk(0), write(1, 500_000, pattern(1, 10))).await;
    let mut model = vec![0; 500_010];
    model[500_000..].copy_from_slice(&pattern(1, 10));
    assert_eq!(whole(&engine, chunk(0), Which::Committed).await.0, model);
    apply(&engine, chunk(0), truncate(2, 500_003)).await;
    apply(&engine, chunk(0), truncate(3, 600_000)).await;
    model.truncate(500_003);
    model.resize(600_000, 0);
    assert_eq!(whole(&engine, chunk(0), Which::Committed).await.0, model);
    apply(&engine, chunk(0), write(4, 550_000, pattern(4, 100))).await;
    model[550_000..550_100].copy_from_slice(&pattern(4, 100));
    assert_eq!(whole(&engine, chunk(0), Which::Committed).await.0, model);
    let (buf, readout) = engine
        .read(TARGET, chunk(0), Which::Committed, 599_990, 100, Check::Here, Buf::unpooled(100))
        .await
        .unwrap();
    assert_eq!((buf.len(), readout.valid), (100, 10));
    let far = engine
        .read(TARGET, chunk(0), Which::Committed, 900_000, 100, Check::Here, Buf::unpooled(100))
        .await;
    let (buf, readout) = far.unwrap();
    assert_eq!((readout.valid, buf.iter().max()), (0, Some(&0)));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_chunk_gives_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    apply(&engine, chunk(0), write(1, 0, pattern(1, 1 << 20))).await;
    apply(&engine, chunk(0), write(2, 4096, pattern(2, 4096))).await;
    assert_eq!(engine.space().used_bytes, 1 << 20);
    apply(&engine, chunk(0), update(3, PendingKind::Remove)).await;
    assert!(engine.load(TARGET).await.unwrap().is_empty());
    engine.core().sync_index().await.unwrap();
    assert_eq!((engine.space().used_bytes, engine.stats().patches), (0, 0));
    apply(&engine, chunk(0), write(1, 0, pattern(3, 10))).await;
    assert_eq!(whole(&engine, chunk(0), Which::Committed).await.0, &pattern(3, 10)[..]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_come_and_go_with_their_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 256 << 20).await;
    assert_eq!(engine.create_target(meta()).await.unwrap_err().code, Code::Exists);
    let other = TargetMeta { id: TargetId(8), ..meta() };
    engine.create_target(other.clone()).await.unwrap();
    let newer = TargetMeta { chain_version: ChainVersion(9), ..meta() };
    engine.update_target(newer.clone()).await.unwrap();
    assert_eq!(engine.targets(), [newer, other.clone()]);
    for index in 0..600 {
        let pending = write(1, 0, pattern(index.into(), 100));
        engine.prepare(TARGET, chunk(index), pending).await.unwrap();
        if index % 3 != 0 {
            engine.commit(TARGET, chunk(index), ChunkVersion(1), ChainVersion(1)).await.unwrap();
        }
    }
    apply(&engine, chunk(1), write(2, 0, pattern(1, 50))).await;
    let loaded = engine.load(TARGET).await.unwrap();
    assert_eq!(loaded.len(), 600);
    assert!(loaded.is_sorted_by_key(|found| found.chunk));
    assert!(loaded[3].committed.is_none() && loaded[3].pending.is_some());
    assert!(loaded[4].committed.is_some() && loaded[4].pending.is_none());
    engine.remove_target(TARGET).await.unwrap();
    assert_eq!(engine.targets(), std::slice::from_ref(&other));
    assert_eq!((engine.space().used_bytes, engine.stats().patches), (0, 0));
    let gone = engine.prepare(TARGET, chunk(0), write(1, 0, pattern(1, 1))).await.unwrap_err();
    assert_eq!(gone.code, Code::NoSuchTarget);
    engine.shutdown().await;
    drop(engine);
    let engine = open(dir.path());
    assert_eq!(engine.targets(), [other]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequential_stream_lies_in_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 256 << 20).await;
    for part in 0..8 {
        let payload = pattern(part.into(), 128 << 10);
        apply(&engine, chunk(1), write(u64::from(part) + 1, part * (128 << 10), payload)).await;
    }
    let before = engine.stats().disk;
    let (content, _) = whole(&engine, chunk(1), Which::Committed).await;
    assert_eq!(&content[3 * (128 << 10)..4 * (128 << 10)], &pattern(3, 128 << 10)[..]);
    let after = engine.stats().disk;
    assert_eq!(after.reads - before.reads, 1, "one request for the whole chunk");
    assert_eq!(after.write_bytes, 1 << 20, "every byte was written once");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_of_many_chunks_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 256 << 20).await;
    let before = engine.stats();
    let tasks: Vec<_> = (0..200)
        .map(|index| {
            let engine = engine.clone();
            tokio::spawn(async move {
                apply(&engine, chunk(index), write(1, 0, pattern(index.into(), 4096))).await;
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let after = engine.stats();
    assert_eq!(after.commits - before.commits, 200);
    let (data, index) =
        (after.disk.syncs - before.disk.syncs, after.index_syncs - before.index_syncs);
    assert!(data < 150 && index < 150, "{data} and {index} syncs for 200 updates");
    for index in (0..200).step_by(17) {
        let (content, _) = whole(&engine, chunk(index), Which::Committed).await;
        assert_eq!(content, &pattern(index.into(), 4096)[..]);
    }
    engine.shutdown().await;
}

/// A syncing target's chunk may be from before the chunk was removed and made anew.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_builds_on_a_chunk_needs_a_later_version() {
    let rows = [
        (write(2, 0, pattern(2, 10)), Err(Code::StaleUpdate)),
        (truncate(2, 5), Err(Code::StaleUpdate)),
        (update(2, PendingKind::Replace), Ok(Some(2))),
        (update(2, PendingKind::Remove), Ok(None)),
    ];
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    for (index, (pending, expected)) in (0..).zip(rows) {
        apply(&engine, chunk(index), write(5, 0, pattern(5, 10_000))).await;
        let kind = pending.kind;
        let outcome = engine.prepare(TARGET, chunk(index), pending).await;
        let left = match expected {
            Ok(left) => left,
            Err(code) => {
                assert_eq!(outcome.unwrap_err().code, code, "{kind:?}");
                continue;
            }
        };
        outcome.unwrap();
        engine.commit(TARGET, chunk(index), ChunkVersion(2), ChainVersion(9)).await.unwrap();
        let found = engine.load(TARGET).await.unwrap();
        let found = found.iter().find(|found| found.chunk == chunk(index));
        let version = found.and_then(|found| found.committed.as_ref()).map(|c| c.version.0);
        assert_eq!(version, left, "{kind:?}");
    }
    engine.shutdown().await;
}

/// The committed patches of version 2 are not taken for those of a removal with that number.
#[tokio::test(flavor = "multi_thread")]
async fn patches_of_an_equal_version_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    apply(&engine, chunk(0), write(1, 0, pattern(1, 100_000))).await;
    apply(&engine, chunk(0), write(2, 4096, pattern(2, 4096))).await;
    apply(&engine, chunk(0), write(3, 40_960, pattern(3, 4096))).await;
    engine.prepare(TARGET, chunk(0), update(2, PendingKind::Remove)).await.unwrap();
    let before = whole(&engine, chunk(0), Which::Committed).await.0;
    drop_without_stop(engine).await;
    let engine = open(dir.path());
    engine.abort(TARGET, chunk(0)).await.unwrap();
    assert!(whole(&engine, chunk(0), Which::Committed).await.0 == before);
    engine.shutdown().await;
}

/// The heartbeat asks for it, and must not wait for the index.
#[tokio::test(flavor = "multi_thread")]
async fn the_space_is_told_while_the_index_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    apply(&engine, chunk(0), write(1, 0, pattern(1, 1 << 20))).await;
    let before = engine.space();
    assert_eq!(before.used_bytes, 1 << 20);
    {
        let _held = engine.core().ledger.lock();
        assert_eq!(engine.space(), before);
    }
    engine.shutdown().await;
}
