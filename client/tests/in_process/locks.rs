//! Locks of clients: answers that are lost, sessions that expire, waits that are given up.

use std::{future::pending, sync::atomic::Ordering::SeqCst, time::Duration};

use ff2_client::{Code, InodeId, LockRange, LockWait, OpenHow};

use crate::{connect, fake::Fake};

fn whole(owner: u64) -> LockRange {
    LockRange { flock: false, owner, exclusive: true, start: 0, end: u64::MAX, pid: 7 }
}

async fn file(client: &ff2_client::Client) -> InodeId {
    let file = client.open("/f", OpenHow::write().create(0o644)).await.unwrap();
    let inode = file.inode();
    file.close().await.unwrap();
    inode
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_answer_is_lost_is_taken_once() {
    let fake = Fake::start().await;
    let (one, two) = (connect(&fake).await, connect(&fake).await);
    let inode = file(&one).await;
    fake.state.lose_mutations.store(2, SeqCst);
    one.me().try_lock(inode, whole(1)).await.unwrap();
    assert_eq!(fake.state.lose_mutations.load(SeqCst), 0);
    let refused = two.me().try_lock(inode, whole(1)).await.unwrap_err();
    assert_eq!(refused.code, Code::WouldBlock);
    let conflict = two.me().lock_conflict(inode, whole(1)).await.unwrap().unwrap();
    assert_eq!((conflict.start, conflict.end, conflict.pid), (0, u64::MAX, 0));
    let conflict = one.me().lock_conflict(inode, whole(2)).await.unwrap().unwrap();
    assert_eq!((conflict.owner, conflict.pid), (1, 7));
    fake.state.lose_mutations.store(1, SeqCst);
    one.me().unlock_all(inode, 1, false).await.unwrap();
    two.me().try_lock(inode, whole(1)).await.unwrap();
    two.close().await;
    one.me().try_lock(inode, whole(1)).await.expect("it ended with its session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_when_its_lock_comes_or_when_it_is_given_up() {
    let fake = Fake::start().await;
    let (one, two) = (connect(&fake).await, connect(&fake).await);
    let inode = file(&one).await;
    one.me().try_lock(inode, whole(1)).await.unwrap();
    let given_up = two.me();
    let soon = tokio::time::sleep(Duration::from_millis(100));
    assert_eq!(given_up.lock(inode, whole(5), soon).await.unwrap(), LockWait::GivenUp);
    assert!(!given_up.may_hold_lock(inode, 5, false));
    let mut waits = Vec::new();
    for owner in 1..=3 {
        let me = two.me();
        waits.push(tokio::spawn(async move {
            let outcome = me.lock(inode, whole(owner), pending()).await;
            me.unlock_all(inode, owner, false).await.unwrap();
            outcome
        }));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(waits.iter().all(|wait| !wait.is_finished()));
    one.me().unlock_all(inode, 1, false).await.unwrap();
    for wait in waits {
        assert_eq!(wait.await.unwrap().unwrap(), LockWait::Granted);
    }
    one.me().try_lock(inode, whole(1)).await.expect("nobody waits any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_begins_anew_in_a_new_session() {
    let fake = Fake::start().await;
    let (one, two) = (connect(&fake).await, connect(&fake).await);
    let inode = file(&one).await;
    one.me().try_lock(inode, whole(1)).await.unwrap();
    let me = two.me();
    let wait = tokio::spawn(async move { me.lock(inode, whole(9), pending()).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = two.session_id();
    fake.expire(before);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_ne!(two.session_id(), before);
    assert!(!wait.is_finished(), "an old ticket counts for nothing");
    assert_eq!(two.lock_losses().await.unwrap(), 0, "nothing was held");
    one.me().unlock_all(inode, 1, false).await.unwrap();
    assert_eq!(wait.await.unwrap().unwrap(), LockWait::Granted);
    let refused = one.me().try_lock(inode, whole(1)).await.unwrap_err();
    assert_eq!(refused.code, Code::WouldBlock);
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_that_go_with_a_session_are_counted_as_lost() {
    let fake = Fake::start().await;
    let (one, two) = (connect(&fake).await, connect(&fake).await);
    let inode = file(&one).await;
    one.me().try_lock(inode, whole(1)).await.unwrap();
    assert_eq!(one.lock_losses().await.unwrap(), 0);
    fake.expire(one.session_id());
    two.me().try_lock(inode, whole(1)).await.unwrap();
    crate::until("the loss is noticed", || !one.me().may_hold_lock(inode, 1, false)).await;
    assert_eq!(one.lock_losses().await.unwrap(), 1);
    let refused = one.me().try_lock(inode, whole(1)).await.unwrap_err();
    assert_eq!(refused.code, Code::WouldBlock);
    // While the namespace is silent nobody can say whether a session lives.
    fake.state.silent.store(true, SeqCst);
    tokio::time::sleep(Duration::from_millis(700)).await;
    let doubt = tokio::time::timeout(Duration::from_secs(5), one.lock_losses()).await;
    assert!(doubt.is_err() || doubt.unwrap().is_err());
    fake.state.silent.store(false, SeqCst);
}
