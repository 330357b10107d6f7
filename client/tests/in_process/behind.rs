//! Writing behind: what a write that returned early is to its own client, to others, and when it fails.

use std::sync::atomic::Ordering::SeqCst;

use ff2_client::{AttrChange, Code, OpenHow};
use ff2_proto::limits::FILE_SIZE_MAX;

use crate::{
    connect,
    fake::{CHUNK_SIZE, Fake},
    pattern,
};

const CHUNK: usize = CHUNK_SIZE as usize;

#[tokio::test]
async fn many_small_writes_are_few_updates_and_are_read_at_once() {
    let fake = Fake::start().await;
    let (writer, reader) = (connect(&fake).await, connect(&fake).await);
    let file = writer.open("/a", OpenHow::read_write().create(0o644)).await.unwrap();
    let bytes = pattern(3 * CHUNK + 100, 1);
    for (number, piece) in bytes.chunks(1000).enumerate() {
        assert!(file.write_behind(number as u64 * 1000, piece), "{number}");
    }
    assert_eq!(file.known_attr().size, bytes.len() as u64);
    let back = file.read_at(0, 1 << 20).await.unwrap();
    assert!(back[..] == bytes[..], "before any sync");
    assert!(fake.state.updates.load(SeqCst) <= 5, "{:?}", fake.state.updates);
    assert!(file.write_behind(7, b"again"));
    file.close().await.unwrap();
    let seen = reader.open("/a", OpenHow::read()).await.unwrap();
    let seen = seen.read_at(0, 1 << 20).await.unwrap();
    assert!(seen.len() == bytes.len() && &seen[7..12] == b"again" && seen[12..] == bytes[12..]);
}

#[tokio::test]
async fn what_is_read_ahead_is_not_older_than_it() {
    const CHUNKS: usize = 64;
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/ahead", OpenHow::read_write().create(0o644)).await.unwrap();
    let mut bytes = pattern(CHUNKS * CHUNK, 4);
    file.write_at(0, &bytes).await.unwrap();
    file.fsync().await.unwrap();
    // The second continues the first, and is gathered until somebody asks for its chunk: which the reader
    // does long after the read-ahead.
    let at = CHUNKS / 2 * CHUNK + 5;
    assert!(file.write_behind(at as u64, b"new"));
    file.fsync().await.unwrap();
    assert!(file.write_behind(at as u64 + 3, b"er"));
    bytes[at..at + 5].copy_from_slice(b"newer");
    for (number, expected) in bytes.chunks(1000).enumerate() {
        let seen = file.read_at(number as u64 * 1000, 1000).await.unwrap();
        assert!(seen[..] == *expected, "from byte {}", number * 1000);
    }
    file.close().await.unwrap();
}

#[tokio::test]
async fn what_waits_longer_than_a_while_is_sent_without_being_asked() {
    let fake = Fake::start().await;
    let (writer, reader) = (connect(&fake).await, connect(&fake).await);
    let file = writer.open("/slow", OpenHow::write().create(0o644)).await.unwrap();
    assert!(file.write_behind(0, b"not closed"));
    let mut size = 0;
    for _ in 0..1000 {
        size = reader.stat("/slow").await.unwrap().size;
        if size > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(size, 10);
}

#[tokio::test]
async fn a_failure_is_told_once_by_each_handle() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/full", OpenHow::read_write().create(0o644)).await.unwrap();
    let other = client.open("/full", OpenHow::write()).await.unwrap();
    fake.state.full_chunk.store(0, SeqCst);
    assert!(file.write_behind(0, b"lost"));
    assert_eq!(file.fsync().await.unwrap_err().code, Code::NoSpace);
    file.fsync().await.unwrap();
    fake.state.full_chunk.store(u32::MAX, SeqCst);
    assert!(file.write_behind(0, b"kept"));
    file.fsync().await.unwrap();
    let late = client.open("/full", OpenHow::write()).await.unwrap();
    late.close().await.unwrap();
    assert_eq!(other.close().await.unwrap_err().code, Code::NoSpace, "it did not tell it yet");
    assert_eq!(&file.read_at(0, 9).await.unwrap()[..], b"kept");
    file.close().await.unwrap();
}

#[tokio::test]
async fn cuts_appends_and_other_writes_come_after_it() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/order", OpenHow::read_write().create(0o644)).await.unwrap();
    assert!(file.write_behind(0, b"0123456789"));
    file.write_at(2, b"XX").await.unwrap();
    assert!(file.write_behind(4, b"y"));
    assert_eq!(&file.read_at(0, 99).await.unwrap()[..], b"01XXy56789");
    assert!(file.write_behind(10, b"tail"));
    let log = client.open("/order", OpenHow::read_write().append()).await.unwrap();
    log.write_at(0, b"+").await.unwrap();
    assert_eq!(&file.read_at(9, 99).await.unwrap()[..], b"9tail+");
    assert!(file.write_behind(20, b"far"));
    let change = AttrChange { size: Some(3), ..AttrChange::default() };
    client.me().set_attr(file.inode(), change).await.unwrap();
    assert_eq!(&file.read_at(0, 99).await.unwrap()[..], b"01X");
    assert!(!log.write_behind(0, b"never"), "only the namespace knows where it goes");
    log.close().await.unwrap();
    file.close().await.unwrap();
}

#[tokio::test]
async fn what_no_file_can_hold_is_refused_at_once() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/end", OpenHow::write().create(0o644)).await.unwrap();
    for offset in [FILE_SIZE_MAX - 1, u64::MAX - 1] {
        assert!(!file.write_behind(offset, b"xx"));
        assert_eq!(file.write_at(offset, b"xx").await.unwrap_err().code, Code::FileTooBig);
    }
    file.close().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_down_is_a_pause() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/down", OpenHow::read_write().create(0o644)).await.unwrap();
    fake.state.down.store(0b110, SeqCst);
    let bytes = pattern(2 * CHUNK, 3);
    assert!(file.write_behind(0, &bytes));
    let back_up = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        fake.state.down.store(0, SeqCst);
    };
    let (closed, ()) = tokio::join!(file.close(), back_up);
    closed.unwrap();
    let seen = client.open("/down", OpenHow::read()).await.unwrap();
    assert!(seen.read_at(0, 1 << 20).await.unwrap()[..] == bytes[..]);
}
