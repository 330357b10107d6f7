//! Metads that are removed, added, stopped, left behind, and configured twice.

use std::time::{Duration, Instant};

use ff2_fabric::{Call, Identity, RaftClient};
use ff2_proto::{Code, pb};
use pb::ns_request::Op;

use crate::world::{Client, LOG_KEEP_ENTRIES, World};

/// One that leads hands over first, and leaders change: whoever asks then asks again.
async fn remove(world: &World, node: u32) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let request = world.signed(pb::RemoveMemberRequest { node });
        match world.admin().await.remove_member(request).await {
            Ok(_) => break,
            Err(refusal) => assert!(Instant::now() < deadline, "{refusal}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn put_user(world: &World, uid: u32) {
    let user = pb::User { uid, name: format!("user {uid}"), ..Default::default() };
    let put = world.signed(pb::PutUserRequest { user: Some(user) });
    world.admin().await.put_user(put).await.unwrap();
}

fn members(world: &World, of: u32) -> Vec<u32> {
    let mut nodes = Vec::new();
    for status in
        [world.metad(of).cluster_group().status(), world.metad(of).namespace_group().status()]
    {
        nodes.extend(status.members.iter().map(|member| member.node));
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_metad_stays_out_until_it_is_added_again() {
    let mut world = World::start(3).await;
    let node = world.follower();
    let other = *world.metads.keys().find(|other| **other != node).unwrap();
    remove(&world, node).await;
    let has_ended = |world: &World| world.metads[&node].1.stop.is_cancelled();
    world.until("the removed one ends", has_ended).await;

    // With an empty folder it is a stranger to the groups, and its id is known to be removed.
    world.kill(node).await;
    world.run_wiped(node).await;
    world.until("it is refused and ends", has_ended).await;
    let (peers, _) = world.peers(Identity::Daemon(world.key.clone()));
    let raft = RaftClient::new(peers.channel(&world.metad(other).address().to_string()));
    for group in [0, 1] {
        let request =
            pb::JoinGroupRequest { group, node, address: "127.0.0.1:1".into(), incarnation: 5 };
        let refusal = raft.join_group(&request, Call::default()).await.unwrap_err();
        assert_eq!(refusal.code, Code::Forbidden);
        assert!(refusal.detail.contains("was removed"), "{refusal}");
    }
    assert!(!members(&world, other).contains(&node));

    let add = || world.signed(pb::AddMemberRequest { node, ..Default::default() });
    let answer = world.admin().await.add_member(add()).await.unwrap_err();
    assert!(answer.message().contains("start ff2-metad there"), "{answer}");
    world.kill(node).await;
    world.run_wiped(node).await;
    world.until_votes(node).await;
    // It votes in one group a moment before the other.
    let add = || world.signed(pb::AddMemberRequest { node, ..Default::default() });
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(missing) = world.admin().await.add_member(add()).await {
        assert!(Instant::now() < deadline, "{missing}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // It serves: without another one, its vote is needed.
    world.kill(other).await;
    put_user(&world, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metad_is_added_and_takes_the_place_of_another() {
    let mut world = World::start(3).await;
    put_user(&world, 7).await;
    world.configure(4);
    world.run(4).await;
    world.until_votes(4).await;
    let old = world.follower();
    let old = if old == 4 { *world.metads.keys().find(|n| **n != 4).unwrap() } else { old };
    remove(&world, old).await;
    world.kill(old).await;
    let rest: Vec<u32> = world.metads.keys().copied().collect();
    assert_eq!(rest.len(), 3);
    world.until("the removal is known", |world| !members(world, rest[0]).contains(&old)).await;
    // Two of the three that are left are enough.
    world.kill(rest[0]).await;
    put_user(&world, 8).await;
    let users = world.signed(pb::ListUsersRequest {});
    let users = world.admin().await.list_users(users).await.unwrap().into_inner().users;
    assert_eq!(users.iter().map(|user| user.uid).collect::<Vec<_>>(), [7, 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_with_the_id_of_one_that_lives_is_kept_out() {
    let world = World::start(3).await;
    let node = world.follower();
    let ids = |world: &World| -> Vec<(u32, u64)> {
        let status = world.metad(node).namespace_group().status();
        status.members.iter().map(|member| (member.node, member.raft_id)).collect()
    };
    let before = ids(&world);
    let (second, runtime) = world.run_second(node).await;
    // Several leases and election timeouts.
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!runtime.admin.is_ready());
        assert!(!world.metads[&node].1.stop.is_cancelled(), "the healthy one was put out");
    }
    assert_eq!(ids(&world), before);
    second.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metad_that_was_away_for_long_gets_a_snapshot() {
    let mut world = World::start(3).await;
    let (_store, _) = world.furnish().await;
    let away = world.follower();
    world.kill(away).await;
    let token = world.key.issue(pb::UserClaims { root: true, ..Default::default() });
    let mut client = Client::mount(&world, &token, 7).await;
    // One entry each: far more than the others keep.
    let names = 3 * LOG_KEEP_ENTRIES;
    for name in 0..names {
        let op = pb::MakeNodeOp {
            parent: 1,
            name: name.to_string().into_bytes().into(),
            kind: pb::FileKind::Directory.into(),
            mode: 0o755,
            ..Default::default()
        };
        client.change(Op::MakeNode(op)).await.unwrap();
    }
    world.run(away).await;
    let leader = world.namespace_leader().unwrap();
    let applied = world.metad(leader).namespace_group().status().applied_index;
    world
        .until("it has caught up", |world| {
            world.metad(away).namespace_group().status().applied_index >= applied
        })
        .await;
    assert_eq!(world.metad(away).namespace_group().snapshots_installed(), 1);
    let get =
        pb::NsRequest { op: Some(Op::GetAttr(pb::GetAttrOp { inode: 1 })), ..Default::default() };
    let root = world
        .metad(away)
        .namespace_group()
        .read_stale(|kv| ff2_meta_core::namespace::query(kv, &get).attr.unwrap())
        .unwrap();
    assert_eq!(u64::from(root.nlink), 2 + names);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_metads_stop_at_once_in_time() {
    let mut world = World::start(3).await;
    let begun = Instant::now();
    world.stop_all().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
