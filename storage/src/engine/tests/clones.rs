//! Clones against copies of what chunks were.

use std::collections::BTreeMap;

use ff2_storage_core::target::Keeping;

use super::*;

fn kept(pending: Pending, since: u32, keep: u32) -> Pending {
    Pending { keeping: Keeping { since, keep }, ..pending }
}

/// A chunk is written, cut, replaced and removed at random, with a snapshot now and then; the disk is opened
/// anew on the way. Each clone stays what the chunk was, and what removes them all leaves no block behind.
#[tokio::test(flavor = "multi_thread")]
async fn clones_stay_what_the_chunk_was_and_share_nothing_with_it() {
    for seed in 1..6_u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut engine = fresh(dir.path(), 128 << 20).await;
        let empty = engine.space().used_bytes;
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let (mut live, mut since): (Option<Vec<u8>>, u32) = (None, 0);
        let mut clones: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut newest = 0;
        for version in 1..120_u64 {
            newest += u32::from(next(6) == 0);
            let keep = if live.is_some() && newest > since { newest } else { 0 };
            let before = live.clone();
            let (offset, len) = (next(700_000) as u32, next(200_000) as usize + 1);
            let offset = if next(2) == 0 { offset / 4096 * 4096 } else { offset };
            let bytes = pattern(version, if next(2) == 0 { len } else { len % 9_000 + 1 });
            let mut content = live.take().unwrap_or_default();
            let pending = match next(10) {
                0 => {
                    content.resize(offset as usize, 0);
                    truncate(version, offset)
                }
                1 if before.is_some() => {
                    content.clear();
                    update(version, PendingKind::Remove)
                }
                2 => {
                    content = bytes.to_vec();
                    let payload = Payload::at(0, bytes.clone());
                    let length = bytes.len() as u32;
                    Pending { payload, length, ..update(version, PendingKind::Replace) }
                }
                _ => {
                    let end = offset as usize + bytes.len();
                    content.resize(content.len().max(end), 0);
                    content[offset as usize..end].copy_from_slice(&bytes);
                    write(version, offset, bytes.clone())
                }
            };
            live = (pending.kind != PendingKind::Remove).then_some(content);
            since = since.max(newest);
            let at = chunk(3);
            engine.prepare(TARGET, at, kept(pending, since, keep)).await.unwrap();
            if next(15) == 0 {
                // What is pending remembers what it keeps.
                engine.shutdown().await;
                drop_without_stop(engine).await;
                engine = open(dir.path());
            }
            engine.commit(TARGET, at, ChunkVersion(version), ChainVersion(1)).await.unwrap();
            if keep != 0 {
                clones.insert(keep, before.unwrap());
            }
            for (id, was) in &clones {
                let (content, _) = whole(&engine, at.at(*id), Which::Committed).await;
                assert!(content == *was, "seed {seed}: clone {id} after version {version}");
            }
            if let Some(live) = &live {
                assert!(whole(&engine, at, Which::Committed).await.0 == *live, "seed {seed}");
            }
        }
        assert!(clones.len() > 5, "seed {seed}: {} clones prove little", clones.len());
        engine.shutdown().await;
        drop_without_stop(engine).await;
        let engine = open(dir.path());
        let loaded = engine.load(TARGET).await.unwrap();
        let found: Vec<u32> = loaded.iter().map(|chunk| chunk.chunk.snapshot).collect();
        let live = live.is_some().then_some(0);
        let expected: Vec<u32> = live.into_iter().chain(clones.keys().copied()).collect();
        assert_eq!(found, expected, "in the order of their names");
        for id in found {
            apply(&engine, chunk(3).at(id), update(1_000, PendingKind::Remove)).await;
        }
        engine.core().sync_index().await.unwrap();
        assert_eq!(engine.space().used_bytes, empty, "seed {seed}: all is space again");
        assert_eq!(engine.stats().patches, 0);
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_update_and_a_clone_that_is_there_keep_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    let at = chunk(0);
    let (old, new) = (pattern(1, 300_000), pattern(2, 5_000));
    apply(&engine, at, write(1, 0, old.clone())).await;
    let used = engine.space().used_bytes;
    engine.prepare(TARGET, at, kept(write(2, 100, new.clone()), 4, 4)).await.unwrap();
    engine.abort(TARGET, at).await.unwrap();
    engine.core().sync_index().await.unwrap();
    assert_eq!(engine.space().used_bytes, used);
    assert_eq!(engine.load(TARGET).await.unwrap().len(), 1);
    // The copy of another replica came first.
    let payload = Payload::at(0, pattern(9, 7_000));
    let copy = Pending { payload, length: 7_000, ..update(1, PendingKind::Replace) };
    apply(&engine, at.at(4), copy).await;
    apply(&engine, at, kept(write(3, 100, new), 4, 4)).await;
    assert_eq!(whole(&engine, at.at(4), Which::Committed).await.0, &pattern(9, 7_000)[..]);
    apply(&engine, at.at(4), update(2, PendingKind::Remove)).await;
    engine.core().sync_index().await.unwrap();
    assert_eq!(engine.space().used_bytes, used, "the old blocks are free");
    engine.shutdown().await;
}
