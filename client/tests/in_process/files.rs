//! Reads, writes, lengths and times of files.

use std::sync::atomic::Ordering::SeqCst;

use ff2_client::{AttrChange, Code, InodeId, OpenHow, TimeChange};

use crate::{
    connect, connect_with,
    fake::{CHUNK_SIZE, Fake},
    pattern,
};

const CHUNK: u64 = CHUNK_SIZE as u64;

#[tokio::test]
async fn what_is_written_is_read() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/a", OpenHow::read_write().create(0o644)).await.unwrap();
    let bytes = pattern(5 * CHUNK as usize + 777, 1);
    assert_eq!(file.write_at(0, &bytes).await.unwrap(), bytes.len());
    assert_eq!(file.attr().await.unwrap().size, bytes.len() as u64, "before any report");
    let mut back = vec![0; bytes.len() + 100];
    assert_eq!(file.read_into(0, &mut back).await.unwrap(), bytes.len());
    assert!(back[..bytes.len()] == bytes[..]);
    for (offset, length) in [(0, 1), (CHUNK - 1, 2), (3 * CHUNK + 5, CHUNK), (5 * CHUNK, 9_999)] {
        let piece = file.read_at(offset, length).await.unwrap();
        let end = (offset + length).min(bytes.len() as u64);
        assert!(piece[..] == bytes[offset as usize..end as usize], "{offset}+{length}");
    }
    assert!(file.read_at(bytes.len() as u64, 10).await.unwrap().is_empty());
    file.close().await.unwrap();
}

#[tokio::test]
async fn ranges_are_read_as_one_by_one() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    for length in [5 * CHUNK + 777, 3000] {
        let file = client.open("/many", OpenHow::read_write().create(0o644)).await.unwrap();
        file.truncate(0).await.unwrap();
        let bytes = pattern(length as usize, length);
        assert_eq!(file.write_at(0, &bytes).await.unwrap(), bytes.len());
        let ends = [(7, 8), (0, 0), (CHUNK - 3, CHUNK + 5), (2 * CHUNK, 4 * CHUNK), (10, 3000)];
        let mut ranges: Vec<_> = ends.iter().map(|(start, end)| *start..*end).collect();
        ranges.extend([length - 1..length + 9, length..length + 1, length + 5..length + 6]);
        let found = file.read_ranges(&ranges).await.unwrap();
        assert_eq!(found.len(), ranges.len());
        for (range, pieces) in ranges.iter().zip(found) {
            let (start, end) = (range.start.min(length) as usize, range.end.min(length) as usize);
            let found: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            assert!(found == bytes[start..end.max(start)], "{range:?} of {length}");
        }
        assert!(file.read_ranges(&[]).await.unwrap().is_empty());
        file.close().await.unwrap();
    }
    let file = client.open("/many", OpenHow::write()).await.unwrap();
    assert_eq!(file.read_ranges(&[]).await.unwrap_err().code, Code::BadHandle);
}

#[tokio::test]
async fn holes_read_as_zeros() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/hole", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(4 * CHUNK + 10, b"end").await.unwrap();
    let bytes = file.read_at(0, 5 * CHUNK).await.unwrap();
    assert_eq!(bytes.len() as u64, 4 * CHUNK + 13);
    assert!(bytes[..bytes.len() - 3].iter().all(|byte| *byte == 0));
    assert_eq!(&bytes[bytes.len() - 3..], b"end");
}

#[tokio::test]
async fn who_opens_after_a_close_sees_everything() {
    let fake = Fake::start().await;
    let (writer, reader) = (connect(&fake).await, connect(&fake).await);
    let bytes = pattern(200_000, 2);
    let file = writer.open("/shared", OpenHow::write().create(0o644)).await.unwrap();
    file.write_at(0, &bytes).await.unwrap();
    assert_eq!(reader.stat("/shared").await.unwrap().size, 0, "nothing is reported yet");
    file.close().await.unwrap();
    let file = reader.open("/shared", OpenHow::read()).await.unwrap();
    assert!(file.read_at(0, 1 << 20).await.unwrap()[..] == bytes[..]);
    file.close().await.unwrap();
    assert_eq!(writer.open_inodes() + reader.open_inodes(), 0);
}

#[tokio::test]
async fn a_flush_shows_the_file_and_leaves_it_usable() {
    let fake = Fake::start().await;
    let (writer, reader) = (connect(&fake).await, connect(&fake).await);
    let file = writer.open("/log", OpenHow::write().create(0o644)).await.unwrap();
    for round in 1..=3u64 {
        file.write_at((round - 1) * 4, b"line").await.unwrap();
        file.flush().await.unwrap();
        assert_eq!(reader.stat("/log").await.unwrap().size, round * 4);
    }
    file.write_at(12, b"tail").await.unwrap();
    file.fsync().await.unwrap();
    assert_eq!(reader.stat("/log").await.unwrap().size, 16);
    file.close().await.unwrap();
    let again = writer.open("/log", OpenHow::read_write()).await.unwrap();
    assert_eq!(&again.read_at(8, 100).await.unwrap()[..], b"linetail");
}

#[tokio::test]
async fn a_long_writer_reports_from_time_to_time() {
    let fake = Fake::start().await;
    let (writer, reader) = (connect(&fake).await, connect(&fake).await);
    let file = writer.open("/slow", OpenHow::write().create(0o644)).await.unwrap();
    file.write_at(0, b"not closed").await.unwrap();
    let mut size = 0;
    for _ in 0..1000 {
        size = reader.stat("/slow").await.unwrap().size;
        if size > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(size, 10);
    file.close().await.unwrap();
}

#[tokio::test]
async fn overlapping_writes_take_effect_in_the_order_of_their_calls() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/order", OpenHow::read_write().create(0o644)).await.unwrap();
    let writes: Vec<_> = (0..40u8).map(|n| vec![n; 3 * CHUNK as usize]).collect();
    let calls = writes.iter().map(|bytes| file.write_at(CHUNK / 2, bytes));
    for outcome in futures::future::join_all(calls).await {
        assert_eq!(outcome.unwrap() as u64, 3 * CHUNK);
    }
    let back = file.read_at(CHUNK / 2, 3 * CHUNK).await.unwrap();
    assert!(back.iter().all(|byte| *byte == 39), "the last call wins everywhere");
}

#[tokio::test]
async fn truncation_cuts_also_what_is_not_reported() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/cut", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, &pattern(3 * CHUNK as usize, 3)).await.unwrap();
    assert_eq!(file.truncate(100).await.unwrap().size, 100);
    assert_eq!(file.attr().await.unwrap().size, 100);
    file.truncate(2 * CHUNK).await.unwrap();
    let back = file.read_at(0, 3 * CHUNK).await.unwrap();
    assert_eq!(back.len() as u64, 2 * CHUNK);
    assert!(back[..100] == pattern(3 * CHUNK as usize, 3)[..100]);
    assert!(back[100..].iter().all(|byte| *byte == 0), "no old bytes come back");
    file.close().await.unwrap();
    let cut = client.open("/cut", OpenHow::write().truncate()).await.unwrap();
    assert_eq!(cut.known_attr().size, 0);
    cut.close().await.unwrap();
    assert_eq!(client.stat("/cut").await.unwrap().size, 0);
}

#[tokio::test]
async fn a_cut_through_a_handle_works_after_its_flush() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/f", OpenHow::write().create(0o600)).await.unwrap();
    file.write_at(0, b"0123456789").await.unwrap();
    file.flush().await.unwrap();
    assert_eq!(file.truncate(4).await.unwrap().size, 4);
    file.close().await.unwrap();
    assert_eq!(client.stat("/f").await.unwrap().size, 4);
}

#[tokio::test]
async fn a_time_that_was_set_survives_the_close() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/old", OpenHow::write().create(0o644)).await.unwrap();
    file.write_at(0, b"extracted").await.unwrap();
    let written = file.known_attr().mtime_ns;
    assert!(written > 1_000_000_000_000_000_000, "{written}");
    let change = AttrChange { mtime: Some(TimeChange::At(42)), ..AttrChange::default() };
    client.me().set_attr(file.inode(), change).await.unwrap();
    file.close().await.unwrap();
    let attr = client.stat("/old").await.unwrap();
    assert_eq!((attr.mtime_ns, attr.size), (42, 9));
}

#[tokio::test]
async fn appends_go_to_the_end() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let how = OpenHow::write().append().create(0o644);
    let a = client.open("/append", how).await.unwrap();
    let b = client.open("/append", how).await.unwrap();
    let lines = (0..50).map(|n| {
        let file = if n % 2 == 0 { &a } else { &b };
        async move { file.write_at(0, format!("{n:04}\n").as_bytes()).await.unwrap() }
    });
    futures::future::join_all(lines).await;
    a.close().await.unwrap();
    b.close().await.unwrap();
    let file = client.open("/append", OpenHow::read()).await.unwrap();
    let text = file.read_at(0, 4096).await.unwrap();
    let mut lines: Vec<_> = std::str::from_utf8(&text).unwrap().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 50);
    assert!(lines.iter().enumerate().all(|(n, line)| *line == format!("{n:04}")));
}

#[tokio::test]
async fn an_append_goes_behind_what_another_client_closed() {
    let fake = Fake::start().await;
    let (a, b) = (connect(&fake).await, connect(&fake).await);
    let how = OpenHow::write().append().create(0o644);
    let log = a.open("/log", how).await.unwrap();
    for round in 0..3 {
        log.write_at(0, b"from a\n").await.unwrap();
        log.fsync().await.unwrap();
        let other = b.open("/log", how).await.unwrap();
        other.write_at(0, b"from b\n").await.unwrap();
        other.close().await.unwrap();
        let size = b.stat("/log").await.unwrap().size;
        assert_eq!(size, 14 * (round + 1), "nothing is overwritten");
    }
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_sequential_reader_is_served_ahead() {
    let fake = Fake::start().await;
    // Nothing ages while this test runs, so that a slow machine changes no count.
    let hour = std::time::Duration::from_secs(3600);
    let client = connect_with(&fake, |options| options.cache(hour)).await;
    let bytes = pattern(8 << 20, 5);
    let file = client.open("/big", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, &bytes).await.unwrap();
    file.close().await.unwrap();
    let file = client.open("/big", OpenHow::read()).await.unwrap();
    let before = fake.state.reads.load(SeqCst);
    for at in (0..bytes.len()).step_by(16 << 10) {
        let piece = file.read_at(at as u64, 16 << 10).await.unwrap();
        assert!(piece[..] == bytes[at..at + (16 << 10)], "at {at}");
    }
    let calls = fake.state.reads.load(SeqCst) - before;
    assert!(calls < 200, "{calls} calls for 512 reads");
}

#[tokio::test]
async fn read_ahead_is_void_after_a_write() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/mixed", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, &vec![1; 1 << 20]).await.unwrap();
    for at in (0..1 << 18).step_by(4096) {
        file.read_at(at, 4096).await.unwrap();
    }
    file.write_at(1 << 18, &vec![2; 1 << 18]).await.unwrap();
    for at in (1 << 18..1 << 19).step_by(4096) {
        let piece = file.read_at(at, 4096).await.unwrap();
        assert!(piece.iter().all(|byte| *byte == 2), "old bytes at {at}");
    }
}

#[tokio::test]
async fn a_handle_does_what_it_was_opened_for() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let writer = client.open("/x", OpenHow::write().create(0o644)).await.unwrap();
    assert_eq!(writer.read_at(0, 1).await.unwrap_err().code, Code::BadHandle);
    let reader = client.open("/x", OpenHow::read()).await.unwrap();
    assert_eq!(reader.write_at(0, b"x").await.unwrap_err().code, Code::BadHandle);
    let far = writer.write_at(u64::MAX - 1, b"xx").await.unwrap_err();
    assert_eq!(far.code, Code::FileTooBig);
    let directory = client.me().open(InodeId(1), OpenHow::write()).await.unwrap_err();
    assert_eq!(directory.code, Code::IsDirectory);
}

#[tokio::test]
async fn a_dropped_file_is_closed_in_the_background() {
    let fake = Fake::start().await;
    let (client, other) = (connect(&fake).await, connect(&fake).await);
    let file = client.open("/dropped", OpenHow::write().create(0o644)).await.unwrap();
    file.write_at(0, b"kept").await.unwrap();
    drop(file);
    crate::until("the close", || client.open_inodes() == 0).await;
    assert_eq!(other.stat("/dropped").await.unwrap().size, 4);
}
