//! Lost answers, failed servers, expired sessions and grants: pauses, not errors.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use ff2_client::{Client, Code, OpenHow};

use crate::{
    connect, connect_with,
    fake::{CHUNK_SIZE, Fake},
    pattern, until,
};

/// A client that gives up soon.
async fn impatient(fake: &Fake) -> Client {
    connect_with(fake, |mut options| {
        options.patience = Duration::from_millis(400);
        options
    })
    .await
}

#[tokio::test]
async fn a_lost_answer_does_not_repeat_its_operation() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    fake.state.lose_mutations.store(3, SeqCst);
    client.create_dir("/once", 0o755).await.unwrap();
    let file = client.open("/once/f", OpenHow::read_write().create_new(0o644)).await.unwrap();
    fake.state.lose_updates.store(3, SeqCst);
    file.write_at(0, b"exactly").await.unwrap();
    assert_eq!(fake.state.lose_updates.load(SeqCst), 0);
    fake.state.lose_mutations.store(2, SeqCst);
    file.close().await.unwrap();
    assert_eq!(client.stat("/once/f").await.unwrap().size, 7);
    fake.state.lose_mutations.store(1, SeqCst);
    client.remove_file("/once/f").await.unwrap();
}

#[tokio::test]
async fn a_failed_node_is_a_pause_until_the_routing_moves_on() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/f", OpenHow::read_write().create(0o644)).await.unwrap();
    let bytes = pattern(6 * CHUNK_SIZE as usize, 1);
    file.write_at(0, &bytes).await.unwrap();
    fake.state.down.store(1 << 1, SeqCst);
    // Reads go on by the other replica.
    assert!(file.read_at(0, 1 << 20).await.unwrap()[..] == bytes[..]);
    let newer = pattern(6 * CHUNK_SIZE as usize, 2);
    {
        let mut write = std::pin::pin!(file.write_at(0, &newer));
        let early = tokio::time::timeout(Duration::from_millis(300), &mut write).await;
        assert!(early.is_err(), "some head is down, so the write waits");
        fake.remove_from_chains(1);
        let written = tokio::time::timeout(Duration::from_secs(5), write).await;
        assert_eq!(written.expect("well below the patience").unwrap(), newer.len());
    }
    assert!(file.read_at(0, 1 << 20).await.unwrap()[..] == newer[..]);
}

#[tokio::test]
async fn patience_ends_at_its_deadline() {
    let fake = Fake::start().await;
    let client = impatient(&fake).await;
    let file = client.open("/f", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, b"before").await.unwrap();
    fake.state.down.store(0b110, SeqCst);
    let failure = file.write_at(0, b"after").await.unwrap_err();
    assert_eq!(failure.code, Code::Fenced, "{failure}");
    let failure = file.read_at(0, 5).await.unwrap_err();
    assert_eq!(failure.code, Code::Fenced, "{failure}");
    fake.state.down.store(0, SeqCst);
    file.write_at(0, b"after").await.unwrap();
}

#[tokio::test]
async fn chunks_behind_one_that_failed_are_part_of_the_file() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/f", OpenHow::read_write().create(0o644)).await.unwrap();
    let chunk = CHUNK_SIZE as usize;
    let bytes = pattern(3 * chunk, 1);
    fake.state.full_chunk.store(0, SeqCst);
    let failure = file.write_at(0, &bytes).await.unwrap_err();
    assert_eq!(failure.code, Code::NoSpace, "{failure}");
    let seen = file.read_at(0, 4 * u64::from(CHUNK_SIZE)).await.unwrap();
    assert_eq!(seen.len(), 3 * chunk);
    assert!(seen[..chunk].iter().all(|byte| *byte == 0) && seen[chunk..] == bytes[chunk..]);
    fake.state.full_chunk.store(4, SeqCst);
    assert_eq!(file.write_at(3 * chunk as u64, &bytes).await.unwrap(), chunk, "a short count");
    file.close().await.unwrap();
    assert_eq!(client.stat("/f").await.unwrap().size, 6 * chunk as u64);
}

#[tokio::test]
async fn a_write_without_an_answer_is_reported_as_such() {
    let fake = Fake::start().await;
    let client = impatient(&fake).await;
    let file = client.open("/f", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, b"before").await.unwrap();
    fake.state.down.store(0b110, SeqCst);
    file.write_at(6, b"after").await.unwrap_err();
    fake.state.down.store(0, SeqCst);
    file.close().await.unwrap();
    assert_eq!(client.stat("/f").await.unwrap().size, 6, "until the chains are asked");
    assert_eq!(fake.state.doubts(), 1);
}

#[tokio::test]
async fn a_change_whose_answer_went_with_its_session_is_not_made_twice() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    fake.state.lose_sessions.store(true, SeqCst);
    fake.state.lose_mutations.store(1, SeqCst);
    let failure = client.create_dir("/d", 0o755).await.unwrap_err();
    assert_eq!(failure.code, Code::UnknownOutcome, "not EEXIST for its own success: {failure}");
    client.stat("/d").await.unwrap();
    fake.state.lose_mutations.store(1, SeqCst);
    client.open("/d/f", OpenHow::read_write().create(0o644)).await.expect("the same twice");
}

#[tokio::test]
async fn results_that_fill_the_pool_are_told_of() {
    let fake = Fake::start().await;
    let client = connect_with(&fake, |mut options| {
        options.patience = Duration::from_millis(400);
        options.buffer_bytes = 8 * u64::from(CHUNK_SIZE);
        options
    })
    .await;
    let file = client.open("/f", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, &pattern(CHUNK_SIZE as usize, 1)).await.unwrap();
    let mut held = Vec::new();
    let failure = loop {
        match file.read_at(0, CHUNK_SIZE.into()).await {
            Ok(bytes) => held.push(bytes),
            Err(failure) => break failure,
        }
        assert!(held.len() <= 8, "the pool has a bound");
    };
    assert!(failure.detail.contains("drop results of earlier reads"), "{failure}");
    drop(held);
    file.read_at(0, CHUNK_SIZE.into()).await.unwrap();
}

#[tokio::test]
async fn open_files_move_into_a_new_session() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/f", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, b"one").await.unwrap();
    let before = client.session_id();
    fake.expire(before);
    client.create_dir("/d", 0o755).await.unwrap();
    assert_ne!(client.session_id(), before);
    file.write_at(3, b"two").await.unwrap();
    assert_eq!(&file.read_at(0, 10).await.unwrap()[..], b"onetwo");
    file.close().await.unwrap();
    assert_eq!(client.stat("/f").await.unwrap().size, 6);
}

#[tokio::test]
async fn a_file_is_used_while_it_moves_into_a_new_session() {
    let fake = Fake::start().await;
    let (client, other) = (connect(&fake).await, connect(&fake).await);
    let file = client.open("/f", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, b"one").await.unwrap();
    fake.state.holding.store(true, SeqCst);
    fake.state.hold_opens.store(1, SeqCst);
    let before = client.session_id();
    fake.expire(before);
    until("a new session", || client.session_id() != before).await;
    // The renewal waits for its open of this file.
    file.fsync().await.unwrap();
    assert_eq!(other.stat("/f").await.unwrap().size, 3);
    fake.state.holding.store(false, SeqCst);
    file.write_at(3, b"two").await.unwrap();
    file.close().await.unwrap();
    assert_eq!(other.stat("/f").await.unwrap().size, 6);
}

#[tokio::test]
async fn a_file_that_was_not_taken_over_in_time_is_not_lost() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/f", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, b"one").await.unwrap();
    fake.state.holding.store(true, SeqCst);
    fake.state.hold_opens.store(1, SeqCst);
    fake.expire(client.session_id());
    let renewed = tokio::time::timeout(Duration::from_secs(20), client.create_dir("/d", 0o755));
    renewed.await.expect("others do not wait for that file").unwrap();
    file.write_at(3, b"two").await.unwrap();
    file.close().await.unwrap();
    fake.state.holding.store(false, SeqCst);
    assert_eq!(client.stat("/f").await.unwrap().size, 6);
}

#[tokio::test]
async fn an_idle_client_notices_by_its_keepalive_that_its_session_expired() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let before = client.session_id();
    fake.expire(before);
    until("a new session", || client.session_id() != before).await;
}

#[tokio::test]
async fn a_file_that_died_with_its_session_is_stale() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let file = client.open("/f", OpenHow::write().create(0o600)).await.unwrap();
    let user = client.caller(ff2_client::pb::Credentials { uid: 7, gid: 7, groups: vec![] });
    let change = ff2_client::AttrChange { uid: Some(7), ..Default::default() };
    client.me().set_attr(file.inode(), change).await.unwrap();
    let theirs = user.open(file.inode(), OpenHow::write()).await.unwrap();
    file.close().await.unwrap();
    let change = ff2_client::AttrChange { mode: Some(0), ..Default::default() };
    client.me().set_attr(theirs.inode(), change).await.unwrap();
    fake.expire(client.session_id());
    client.create_dir("/d", 0o755).await.unwrap();
    assert_eq!(theirs.write_at(0, b"x").await.unwrap_err().code, Code::StaleInode);
}

#[tokio::test]
async fn expired_grants_are_renewed() {
    let fake = Fake::start().await;
    fake.state.grant_s.store(0, SeqCst);
    let client = connect(&fake).await;
    let file = client.open("/f", OpenHow::read_write().create(0o644)).await.unwrap();
    fake.state.grant_s.store(3600, SeqCst);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    file.write_at(0, b"renewed").await.unwrap();
    assert_eq!(&file.read_at(0, 10).await.unwrap()[..], b"renewed");
}

#[tokio::test]
async fn an_unlinked_file_is_held_while_it_is_open() {
    let fake = Fake::start().await;
    let (client, other) = (connect(&fake).await, connect(&fake).await);
    let file = client.open("/gone", OpenHow::read_write().create(0o644)).await.unwrap();
    file.write_at(0, b"still here").await.unwrap();
    other.remove_file("/gone").await.unwrap();
    let inode = file.inode().0;
    let held = || {
        let keepalives = fake.state.keepalives.lock();
        let of_client = keepalives.iter().rev().take(4);
        of_client.clone().any(|op| op.seen_orphan_seq == 1 && op.holds == [inode])
    };
    until("the hold", held).await;
    file.write_at(5, b" works").await.unwrap();
    assert_eq!(&file.read_at(0, 20).await.unwrap()[..], b"still works");
    file.close().await.unwrap();
    let let_go = || {
        let keepalives = fake.state.keepalives.lock();
        keepalives.len() > 6 && keepalives.iter().rev().take(2).all(|op| op.holds.is_empty())
    };
    fake.state.keepalives.lock().clear();
    until("the end of the hold", let_go).await;
}

/// Who looked a name up just before another file was renamed over it opens what it found, as on any other
/// file system.
#[tokio::test]
async fn what_was_removed_a_moment_ago_still_opens() {
    let fake = Fake::start().await;
    let (client, other) = (connect(&fake).await, connect(&fake).await);
    let mut opened = 0;
    for name in ["/a", "/b", "/c", "/d", "/e"] {
        let file = client.open(name, OpenHow::read_write().create(0o644)).await.unwrap();
        file.write_at(0, b"what was found").await.unwrap();
        let inode = file.inode();
        file.close().await.unwrap();
        other.remove_file(name).await.unwrap();
        match client.me().open(inode, OpenHow::read()).await {
            Ok(file) => {
                opened += 1;
                let held = || {
                    let keepalives = fake.state.keepalives.lock();
                    keepalives.iter().any(|op| op.holds == [inode.0])
                };
                until("the hold", held).await;
                assert_eq!(&file.read_at(0, 20).await.unwrap()[..], b"what was found");
                file.close().await.unwrap();
            }
            // A keepalive went just between the two, and said that it is not open here.
            Err(failure) => assert_eq!(failure.code, Code::StaleInode),
        }
    }
    assert!(opened > 0);
    assert_eq!(client.open_inodes() + other.open_inodes(), 0);
}

#[tokio::test]
async fn a_removed_file_opens_only_while_somebody_here_has_it_open() {
    let fake = Fake::start().await;
    let (client, other) = (connect(&fake).await, connect(&fake).await);
    let file = client.open("/gone", OpenHow::read_write().create(0o644)).await.unwrap();
    let inode = file.inode();
    other.remove_file("/gone").await.unwrap();
    let again = client.me().open(inode, OpenHow::read_write()).await.unwrap();
    file.close().await.unwrap();
    again.write_at(0, b"held").await.unwrap();
    again.close().await.unwrap();
    // Both clients have said that it is not open there.
    let told = || {
        let keepalives = fake.state.keepalives.lock();
        keepalives.iter().rev().take(4).filter(|op| op.seen_orphan_seq == 1).count() == 4
    };
    until("the acknowledgement", told).await;
    for how in [OpenHow::read(), OpenHow::read_write()] {
        assert_eq!(other.me().open(inode, how).await.unwrap_err().code, Code::StaleInode);
    }
    assert_eq!(client.open_inodes() + other.open_inodes(), 0);
}
