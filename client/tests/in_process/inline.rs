//! Small files: no storage node is asked, until they move to chunks.

use std::sync::atomic::Ordering::SeqCst;

use ff2_client::{AttrChange, Client, Code, OpenHow};
use ff2_proto::limits::INLINE_BYTES_MAX;

use crate::{connect_with, fake::Fake, pattern};

const MAX: usize = INLINE_BYTES_MAX as usize;

async fn connect(fake: &Fake) -> Client {
    connect_with(fake, |options| options.inline(true)).await
}

fn storage_calls(fake: &Fake) -> (u32, u32) {
    (fake.state.reads.load(SeqCst), fake.state.updates.load(SeqCst))
}

#[tokio::test]
async fn a_small_file_asks_no_storage_node() {
    let fake = Fake::start().await;
    let (writer, reader) = (connect(&fake).await, connect(&fake).await);
    let bytes = pattern(MAX, 1);
    let file = writer.open("/small", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(100, &bytes[100..]).await.unwrap();
    assert_eq!(&file.read_at(0, 200).await.unwrap()[..], [&[0; 100], &bytes[100..200]].concat());
    file.write_at(0, &bytes[..100]).await.unwrap();
    assert_eq!(reader.stat("/small").await.unwrap().size, 0, "nothing is told yet");
    file.fsync().await.unwrap();
    let seen = reader.open("/small", OpenHow::read()).await.unwrap();
    assert!(seen.read_at(0, 1 << 20).await.unwrap()[..] == bytes[..]);
    file.write_at(MAX as u64 - 3, b"end").await.unwrap();
    file.close().await.unwrap();
    let seen = reader.open("/small", OpenHow::read()).await.unwrap();
    assert_eq!(&seen.read_at(MAX as u64 - 3, 9).await.unwrap()[..], b"end");
    assert_eq!(storage_calls(&fake), (0, 0));
}

#[tokio::test]
async fn a_file_that_grows_moves_with_what_was_kept_for_it() {
    let fake = Fake::start().await;
    let (writer, reader) = (connect(&fake).await, connect(&fake).await);
    let bytes = pattern(3 * MAX, 2);
    let file = writer.open("/grows", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, &bytes[..10]).await.unwrap();
    file.fsync().await.unwrap();
    file.write_at(10, &bytes[10..MAX]).await.unwrap();
    file.write_at(MAX as u64, &bytes[MAX..]).await.unwrap();
    assert!(storage_calls(&fake).1 > 0);
    file.write_at(5, b"late").await.unwrap();
    let expected = [&bytes[..5], b"late", &bytes[9..]].concat();
    assert!(file.read_at(0, 1 << 20).await.unwrap()[..] == expected[..]);
    file.close().await.unwrap();
    let seen = reader.open("/grows", OpenHow::read()).await.unwrap();
    assert!(seen.read_at(0, 1 << 20).await.unwrap()[..] == expected[..]);
}

#[tokio::test]
async fn writes_that_were_kept_follow_a_file_that_somebody_else_moved() {
    let fake = Fake::start().await;
    let (one, two) = (connect(&fake).await, connect(&fake).await);
    let file = one.open("/both", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, b"one").await.unwrap();
    file.fsync().await.unwrap();
    file.write_at(3, b"kept").await.unwrap();
    let other = two.open("/both", OpenHow::read_write()).await.unwrap();
    other.write_at(MAX as u64, b"far").await.unwrap();
    other.close().await.unwrap();
    // It learns of the move when it tells its writes.
    file.fsync().await.unwrap();
    file.write_at(0, b"ONE").await.unwrap();
    file.close().await.unwrap();
    let seen = two.open("/both", OpenHow::read()).await.unwrap();
    let whole = seen.read_at(0, 1 << 20).await.unwrap();
    assert_eq!((whole.len(), &whole[..7], &whole[MAX..]), (MAX + 3, &b"ONEkept"[..], &b"far"[..]));
}

#[tokio::test]
async fn a_reader_sees_the_change_of_another_mount_as_late_as_its_attributes() {
    let fake = Fake::start().await;
    let writer = connect(&fake).await;
    let reader = connect_with(&fake, |o| o.inline(true).cache(std::time::Duration::ZERO)).await;
    let file = writer.open("/seen", OpenHow::write().create(0o644)).await.unwrap();
    let seen = reader.open("/seen", OpenHow::read()).await.unwrap();
    for text in [b"first", b"other"] {
        file.write_at(0, text).await.unwrap();
        file.flush().await.unwrap();
        assert_eq!(&seen.read_at(0, 9).await.unwrap()[..], text);
    }
}

#[tokio::test]
async fn cutting_comes_after_what_was_written_before_it() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/cut", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, b"0123456789").await.unwrap();
    assert_eq!(file.truncate(4).await.unwrap().size, 4);
    file.write_at(6, b"x").await.unwrap();
    assert_eq!(&file.read_at(0, 99).await.unwrap()[..], b"0123\0\0x");
    let change = AttrChange { size: Some(1 << 20), ..AttrChange::default() };
    client.me().set_attr(file.inode(), change).await.unwrap();
    let whole = file.read_at(0, 2 << 20).await.unwrap();
    assert_eq!((whole.len(), &whole[..7]), (1 << 20, &b"0123\0\0x"[..]));
    file.close().await.unwrap();
    let again = client.open("/cut", OpenHow::write().truncate()).await.unwrap();
    again.write_at(0, b"new").await.unwrap();
    again.close().await.unwrap();
    let seen = client.open("/cut", OpenHow::read()).await.unwrap();
    assert_eq!(&seen.read_at(0, 99).await.unwrap()[..], b"new");
    assert_eq!(storage_calls(&fake), (0, 0));
}

#[tokio::test]
async fn a_lost_answer_changes_nothing() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/lost", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, b"once").await.unwrap();
    fake.state.lose_mutations.store(1, SeqCst);
    file.close().await.unwrap();
    let file = client.open("/lost", OpenHow::read_write()).await.unwrap();
    file.write_at(4, b"more").await.unwrap();
    fake.state.lose_sessions.store(true, SeqCst);
    fake.state.lose_mutations.store(1, SeqCst);
    file.write_at(MAX as u64, b"!").await.unwrap();
    file.close().await.unwrap();
    let seen = client.open("/lost", OpenHow::read()).await.unwrap();
    let whole = seen.read_at(0, 1 << 20).await.unwrap();
    assert_eq!((whole.len(), &whole[..8], whole[MAX]), (MAX + 1, &b"oncemore"[..], b'!'));
}

#[tokio::test]
async fn an_expired_grant_is_renewed_to_read() {
    let fake = Fake::start().await;
    let writer = connect(&fake).await;
    let reader = connect_with(&fake, |o| o.inline(true).cache(std::time::Duration::ZERO)).await;
    let file = writer.open("/grant", OpenHow::write().create(0o644)).await.unwrap();
    file.write_at(0, b"text").await.unwrap();
    file.close().await.unwrap();
    fake.state.grant_s.store(0, SeqCst);
    let seen = reader.open("/grant", OpenHow::read()).await.unwrap();
    fake.state.grant_s.store(60, SeqCst);
    assert_eq!(&seen.read_at(0, 9).await.unwrap()[..], b"text");
    fake.state.grant_s.store(0, SeqCst);
    let refused = reader.open("/grant", OpenHow::read()).await.unwrap();
    assert_eq!(refused.read_at(0, 9).await.unwrap_err().code, Code::GrantExpired);
}
