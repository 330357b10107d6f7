//! What small updates cost the disk, counted.

use super::*;

/// Bytes that reached the disk: data, index log, index tables.
fn written(engine: &Engine) -> u64 {
    let stats = engine.stats();
    let index = stats.index;
    stats.disk.write_bytes + index.log_bytes + index.flush_bytes + index.compaction_bytes
}

/// 4 KiB random overwrites of a large file, durable: at most 12 KiB each, all writers counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_4_kib_overwrite_writes_at_most_12_kib() {
    const CHUNKS: u32 = 32;
    const UPDATES: u64 = 12_000;
    const WRITERS: u64 = 16;
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 256 << 20).await;
    for index in 0..CHUNKS {
        apply(&engine, chunk(index), write(1, 0, pattern(index.into(), CHUNK as usize))).await;
    }
    let tags: Vec<_> = (0..4)
        .map(|channel| ff2_proto::pb::AppliedTag {
            tag: Some(ff2_proto::pb::UpdateTag {
                session: 77,
                channel,
                seq: 1 << 20,
                ack_below: 0,
            }),
            version: 1 << 20,
        })
        .collect();
    let before = written(&engine);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (engine, tags) = (engine.clone(), tags.clone());
            tokio::spawn(async move {
                let mut random = writer + 1;
                for number in 0..UPDATES / WRITERS {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let spread = (random >> 33) as u32;
                    // Each writer has two chunks of its own: one pending version at a time.
                    let index = writer as u32 * 2 + spread % 2;
                    let offset = spread / 2 % (CHUNK / 4096) * 4096;
                    let pending = write(number + 2, offset, pattern(random, 4096));
                    apply(&engine, chunk(index), Pending { tags: tags.clone(), ..pending }).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    // The background's own round may hold the last patches while a round of ours finds none.
    for _ in 0..1_000 {
        while engine.core().write_back().await.unwrap() > 0 {}
        if engine.stats().patches == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let each = (written(&engine) - before) / UPDATES;
    let stats = engine.stats();
    println!("{each} bytes for each 4 KiB overwrite: {stats:?}");
    assert!(each <= 12 << 10, "{each} bytes for each 4 KiB overwrite: {stats:?}");
    assert_eq!(stats.patches, 0);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_write_is_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 256 << 20).await;
    let before = written(&engine);
    for index in 0..32 {
        apply(&engine, chunk(index), write(1, 0, pattern(index.into(), CHUNK as usize))).await;
    }
    let bytes = written(&engine) - before;
    assert!(bytes < 33 << 20, "{bytes} bytes for 32 MiB");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_4_kib_read_reads_4_kib() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path(), 64 << 20).await;
    apply(&engine, chunk(0), write(1, 0, pattern(1, CHUNK as usize))).await;
    let before = engine.stats().disk;
    for sector in [0, 7, 100, 255] {
        let buf = Buf::unpooled(4096);
        let which = Which::Committed;
        let (buf, _) = engine
            .read(TARGET, chunk(0), which, sector * 4096, 4096, Check::Here, buf)
            .await
            .unwrap();
        let at = sector as usize * 4096;
        assert_eq!(buf[..], pattern(1, CHUNK as usize)[at..at + 4096]);
    }
    let after = engine.stats().disk;
    assert_eq!((after.reads - before.reads, after.read_bytes - before.read_bytes), (4, 4 * 4096));
    engine.shutdown().await;
}
