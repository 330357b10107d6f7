//! A mount's life: sessions, files, exactly-once over a change of leader, truncations, orphans.

use std::time::Duration;

use ff2_proto::{Code, pb};
use pb::ns_request::Op;

use crate::world::{Client, World};

const ROOT: u64 = 1;

pub(crate) fn create(name: &str) -> Op {
    Op::Create(pb::CreateOp {
        parent: ROOT,
        name: name.as_bytes().to_vec().into(),
        mode: 0o644,
        exclusive: true,
        read: true,
        write: true,
        ..Default::default()
    })
}

fn lookup(name: &str) -> Op {
    let name = name.as_bytes().to_vec().into();
    Op::Lookup(pb::LookupOp { parent: ROOT, name, ..Default::default() })
}

/// The root directory belongs to root: lets everybody create in it.
pub(crate) async fn open_root(world: &World) {
    let token = world.key.issue(pb::UserClaims { root: true, ..Default::default() });
    let mut root = Client::mount(world, &token, 1).await;
    let op = pb::SetAttrOp { inode: ROOT, mode: Some(0o777), ..Default::default() };
    root.change(Op::SetAttr(op)).await.unwrap();
    root.change(Op::CloseSession(pb::CloseSessionOp {})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_survive_the_leader_and_a_wiped_metad_comes_back() {
    let mut world = World::start(3).await;
    let (_store, token) = world.furnish().await;
    open_root(&world).await;
    let mut client = Client::mount(&world, &token, 77).await;

    let made = client.change(create("before")).await.unwrap();
    let attr = made.attr.unwrap();
    assert_eq!((attr.uid, attr.mode), (1000, 0o644));
    assert!(attr.layout.is_some(), "the leader chose a layout");
    assert!(attr.inode > 1 << 30, "the first file's number is not to be guessed: {}", attr.inode);
    let grant = world.key.check_grant(&made.grant, 0).unwrap();
    assert_eq!((grant.inode, grant.session, grant.write), (attr.inode, client.session, true));
    let seq = client.seq;

    let leader = world.namespace_leader().unwrap();
    world.kill(leader).await;
    let again = client.repeat(seq, create("before")).await.unwrap();
    assert_eq!(again.attr.unwrap().inode, attr.inode, "the same answer, not EXISTS");
    assert_eq!(client.change(create("before")).await.unwrap_err().code, Code::Exists);
    client.change(create("after")).await.unwrap();
    assert_eq!(client.ask(lookup("before")).await.unwrap().attr.unwrap().inode, attr.inode);

    std::fs::remove_dir_all(world.data_dir(leader)).unwrap();
    world.run(leader).await;
    world
        .until("the wiped metad is a voter of both groups and has caught up", |world| {
            let (metad, runtime) = &world.metads[&leader];
            let has_joined = |status: pb::GroupStatus| {
                let own = status.members.iter().filter(|member| member.node == leader);
                let own: Vec<_> = own.collect();
                own.len() == 1 && own[0].voter && own[0].raft_id > 3 && status.leader_node != 0
            };
            runtime.admin.is_ready()
                && has_joined(metad.cluster_group().status())
                && has_joined(metad.namespace_group().status())
        })
        .await;
    // A command of each group behind the change of members: then it is complete.
    client.change(create("between")).await.unwrap();
    let user = pb::User { uid: 2, name: "bob".into(), ..Default::default() };
    let put = world.signed(pb::PutUserRequest { user: Some(user) });
    world.admin().await.put_user(put).await.unwrap();
    // Another failure leaves the returned one in the majority.
    let other = world.metads.keys().copied().find(|node| *node != leader).unwrap();
    world.kill(other).await;
    client.change(create("last")).await.unwrap();
    for name in ["before", "after", "between", "last"] {
        client.ask(lookup(name)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_speaks_for_its_user_and_a_revoked_token_for_nobody() {
    let world = World::start(1).await;
    let (_store, token) = world.furnish().await;
    let client = Client::mount(&world, &token, 5).await;
    let request = |cred| pb::NsRequest {
        volume: 1,
        session: client.session,
        cred: Some(cred),
        op: Some(lookup("x")),
        ..Default::default()
    };
    let own = pb::Credentials { uid: 1000, gid: 1000, groups: vec![] };
    assert_eq!(client.call(request(own)).await.unwrap_err().code, Code::NotFound);
    let root = pb::Credentials::default();
    assert_eq!(client.call(request(root)).await.unwrap_err().code, Code::Forbidden);
    let collect = Op::Collect(pb::CollectOp { inodes: vec![1] });
    assert_eq!(client.ask(collect).await.unwrap_err().code, Code::Forbidden);

    let forged = ff2_fabric::ClusterKey::generate().unwrap();
    let forged = forged.issue(pb::UserClaims { root: true, ..Default::default() });
    let (peers, _) = world.peers(ff2_fabric::Identity::User(forged));
    let stranger = ff2_fabric::NamespaceClient::new(peers.channel(&world.addresses()[0]));
    let call = ff2_fabric::Call::within(Duration::from_secs(2));
    let own = || request(pb::Credentials { uid: 1000, gid: 1000, groups: vec![] });
    let refused = stranger.execute(&own(), call).await.unwrap_err();
    assert_eq!(refused.code, Code::Unauthenticated);
    assert!(refused.detail.contains("check the token file"), "{refused}");

    let revoke = pb::RevokeTokenRequest { token_id: token.claims().token_id };
    world.admin().await.revoke_token(world.signed(revoke)).await.unwrap();
    // The open connection ends with the first call; the outcome of that one may be unknown.
    let ended = client.call(own()).await.unwrap_err();
    assert_eq!(ended.code, Code::Unauthenticated, "{ended}");
    let (peers, _) = world.peers(ff2_fabric::Identity::User(token.clone()));
    let again = ff2_fabric::NamespaceClient::new(peers.channel(&world.addresses()[0]));
    let call = ff2_fabric::Call::within(Duration::from_secs(10));
    let refused = again.execute(&own(), call).await.unwrap_err();
    assert_eq!(refused.code, Code::Unauthenticated);
    let why = format!("token {} of user ann was revoked", token.claims().token_id);
    assert!(refused.detail.contains(&why), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_used_by_its_owner_only() {
    let world = World::start(1).await;
    let (_store, token) = world.furnish().await;
    open_root(&world).await;
    let mut ann = Client::mount(&world, &token, 5).await;
    let bobs = world.key.issue(pb::UserClaims { uid: 1001, gid: 1001, ..Default::default() });
    let mut bob = Client::mount(&world, &bobs, 5).await;
    assert_ne!(bob.session, ann.session, "nonces are each owner's");
    bob.session = ann.session;
    let first = Op::Keepalive(pb::KeepaliveOp::default());
    let attacks = [first, Op::CloseSession(pb::CloseSessionOp {}), create("theirs"), lookup("x")];
    for op in attacks {
        let seq = 1;
        assert_eq!(bob.repeat(seq, op).await.unwrap_err().code, Code::Forbidden);
    }
    let made = ann.change(create("hers")).await.unwrap().attr.unwrap();
    assert_eq!(made.uid, 1000);
    ann.ask(Op::Keepalive(pb::KeepaliveOp::default())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_that_cannot_be_is_refused_with_what_there_is() {
    let world = World::start(1).await;
    let (_store, token) = world.furnish().await;
    open_root(&world).await;
    let mut client = Client::mount(&world, &token, 5).await;
    let layout = pb::Layout { table: 9, chunk_size: 1 << 20, stripe: 1, ..Default::default() };
    let Op::Create(create) = create("file") else { unreachable!() };
    let op = Op::Create(pb::CreateOp { layout: Some(layout), ..create });
    let refusal = client.change(op).await.unwrap_err();
    assert_eq!(refusal.code, Code::InvalidArgument);
    assert!(refusal.detail.contains("there are [1]"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncation_is_cut_before_it_is_answered_and_orphans_are_collected() {
    let world = World::start(1).await;
    let (store, token) = world.furnish().await;
    open_root(&world).await;
    let mut client = Client::mount(&world, &token, 7).await;
    let made = client.change(create("file")).await.unwrap().attr.unwrap();
    let (inode, chunk_size) = (made.inode, u64::from(made.layout.unwrap().chunk_size));
    // As if the mount had written four chunks.
    store.chunks.lock().extend((0..4).map(|index| ((inode, index), chunk_size as u32)));
    let close =
        pb::CloseOp { inode, length_at_least: 4 * chunk_size, wrote: true, ..Default::default() };
    client.change(Op::Close(close)).await.unwrap();
    let size = chunk_size + 5;
    let op = Op::SetAttr(pb::SetAttrOp { inode, size: Some(size), ..Default::default() });
    let reply = client.change(op.clone()).await.unwrap();
    assert_eq!(reply.attr.unwrap().size, size);
    assert!(reply.truncation.is_none(), "that is between the leader and its machine");
    let left: Vec<_> = store.chunks.lock().iter().map(|(key, len)| (key.1, *len)).collect();
    assert_eq!(left, [(0, chunk_size as u32), (1, 5), (2, 0), (3, 0)]);
    // The answer again: what was written since is not cut.
    store.chunks.lock().insert((inode, 2), 1);
    client.repeat(client.seq, op).await.unwrap();
    assert_eq!(store.chunks.lock()[&(inode, 2)], 1);

    let unlink = pb::UnlinkOp { parent: ROOT, name: "file".into(), directory: false };
    client.change(Op::Unlink(unlink)).await.unwrap();
    let keepalive = |seen, holds| Op::Keepalive(pb::KeepaliveOp { seen_orphan_seq: seen, holds });
    let reply = client.ask(keepalive(0, vec![])).await.unwrap();
    let notice = reply.orphans[0];
    assert_eq!(notice.inode, inode);
    client.ask(keepalive(notice.seq, vec![inode])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(store.chunks.lock().contains_key(&(inode, 0)), "it is held");
    client.ask(keepalive(notice.seq, vec![])).await.unwrap();
    world.until("the chunks are collected", |_| store.chunks.lock().is_empty()).await;
    let gone = Op::GetAttr(pb::GetAttrOp { inode });
    for _ in 0..500 {
        if client.ask(gone.clone()).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the orphan stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_length_of_a_lost_writer_is_asked_from_the_chains() {
    let world = World::start_with(1, 3_000).await;
    let (store, token) = world.furnish().await;
    open_root(&world).await;
    let mut lost = Client::mount(&world, &token, 8).await;
    let made = lost.change(create("file")).await.unwrap().attr.unwrap();
    let chunk_size = u64::from(made.layout.unwrap().chunk_size);
    store.chunks.lock().insert((made.inode, 2), 9);
    // It never speaks again; another mount sees the length when its session is over.
    let watcher = Client::mount(&world, &token, 9).await;
    let mut seen = 0;
    for _ in 0..200 {
        let keepalive = pb::KeepaliveOp::default();
        watcher.ask(Op::Keepalive(keepalive)).await.unwrap();
        let get = Op::GetAttr(pb::GetAttrOp { inode: made.inode });
        seen = watcher.ask(get).await.unwrap().attr.unwrap().size;
        if seen > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(seen, 2 * chunk_size + 9);
    let late = lost.change(create("late")).await.unwrap_err();
    assert_eq!(late.code, Code::SessionExpired);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_waits_for_the_length_that_only_the_chains_know() {
    let world = World::start(1).await;
    let (store, token) = world.furnish().await;
    open_root(&world).await;
    let mut writer = Client::mount(&world, &token, 7).await;
    let made = writer.change(create("file")).await.unwrap().attr.unwrap();
    let inode = made.inode;
    // Another mount cuts the file under its writer, who writes on and does not know of it.
    let mut other = Client::mount(&world, &token, 8).await;
    let cut = Op::SetAttr(pb::SetAttrOp { inode, size: Some(0), ..Default::default() });
    other.change(cut).await.unwrap();
    store.chunks.lock().insert((inode, 0), 77);
    let close = pb::CloseOp { inode, length_at_least: 900, wrote: true, ..Default::default() };
    let reply = writer.change(Op::Close(close)).await.unwrap();
    assert!(!reply.length_in_doubt, "that is between the leader and its machine");
    assert_eq!(reply.attr.unwrap().size, 77);
    let get = Op::GetAttr(pb::GetAttrOp { inode });
    assert_eq!(other.ask(get).await.unwrap().attr.unwrap().size, 77);
}
