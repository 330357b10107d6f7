//! Locks over a change of leader, and tokens that are for one folder.

use ff2_proto::{Code, pb};
use pb::ns_request::Op;

use crate::world::{Client, World, sign};

const ROOT: u64 = 1;

fn range(owner: u64, ticket: u64) -> Option<pb::Lock> {
    Some(pb::Lock { owner, ticket, exclusive: true, start: 0, end: 9, ..Default::default() })
}

fn set(inode: u64, owner: u64, ticket: u64) -> Op {
    Op::SetLock(pb::SetLockOp { inode, lock: range(owner, ticket), wait: ticket != 0 })
}

fn unlock(inode: u64, owner: u64) -> Op {
    Op::Unlock(pb::UnlockOp { inode, lock: range(owner, 0) })
}

fn awaited(owner: u64, ticket: u64, wait_ms: u32) -> Op {
    let tickets = vec![pb::LockTicket { owner, ticket }];
    Op::AwaitLocks(pb::AwaitLocksOp { tickets, wait_ms })
}

fn mkdir(parent: u64, name: &str) -> Op {
    Op::MakeNode(pb::MakeNodeOp {
        parent,
        name: name.to_owned().into_bytes().into(),
        kind: pb::FileKind::Directory.into(),
        mode: 0o777,
        ..Default::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_and_the_line_before_them_outlive_the_leader() {
    let mut world = World::start(3).await;
    let (_store, _) = world.furnish().await;
    let token = world.key.issue(pb::UserClaims { root: true, ..Default::default() });
    let mut one = Client::mount(&world, &token, 1).await;
    let mut two = Client::mount(&world, &token, 2).await;
    let inode = one.change(mkdir(ROOT, "d")).await.unwrap().attr.unwrap().inode;

    let held = one.change(set(inode, 1, 0)).await.unwrap();
    assert!(held.granted);
    let refused = two.change(set(inode, 1, 0)).await.unwrap_err();
    assert_eq!(refused.code, Code::WouldBlock);
    assert!(!two.change(set(inode, 1, 70)).await.unwrap().granted);
    assert!(two.ask(awaited(1, 70, 100)).await.unwrap().granted_tickets.is_empty());

    // The question is held, and answered by what another session does.
    let (answer, freed) =
        tokio::join!(two.ask(awaited(1, 70, 1_500)), one.change(unlock(inode, 1)));
    assert!(freed.unwrap().lock_grants.is_empty(), "whose they are is nobody else's business");
    let granted = match answer.unwrap().granted_tickets {
        // It may have been asked and answered before the lock was free.
        none if none.is_empty() => two.ask(awaited(1, 70, 1_500)).await.unwrap().granted_tickets,
        granted => granted,
    };
    assert_eq!(granted, [70]);

    assert!(!one.change(set(inode, 5, 80)).await.unwrap().granted);
    let leader = world.namespace_leader().unwrap();
    world.kill(leader).await;
    assert_eq!(one.change(set(inode, 6, 0)).await.unwrap_err().code, Code::WouldBlock);
    assert!(one.ask(awaited(5, 80, 0)).await.unwrap().granted_tickets.is_empty());
    // A session that ends makes room at once.
    let close = two.change(Op::CloseSession(pb::CloseSessionOp {}));
    let (answer, closed) = tokio::join!(one.ask(awaited(5, 80, 1_500)), close);
    closed.unwrap();
    let granted = match answer.unwrap().granted_tickets {
        none if none.is_empty() => one.ask(awaited(5, 80, 1_500)).await.unwrap().granted_tickets,
        granted => granted,
    };
    assert_eq!(granted, [80]);
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_a_folder_is_confined_to_it() {
    let mut world = World::start(1).await;
    let (_store, _) = world.furnish().await;
    let token = world.key.issue(pb::UserClaims { root: true, ..Default::default() });
    let mut root = Client::mount(&world, &token, 1).await;
    let shared = root.change(mkdir(ROOT, "shared")).await.unwrap().attr.unwrap().inode;
    let inner = root.change(mkdir(shared, "inner")).await.unwrap().attr.unwrap().inode;
    let other = root.change(mkdir(ROOT, "other")).await.unwrap().attr.unwrap().inode;

    let user = pb::User { uid: 0, name: "root".into(), root: true, ..Default::default() };
    let mut admin = world.admin().await;
    let put = pb::PutUserRequest { user: Some(user) };
    admin.put_user(world.signed(put)).await.unwrap();
    let issue = |subtree: &str| pb::IssueTokenRequest {
        subtree: subtree.to_owned().into_bytes().into(),
        ..Default::default()
    };
    let missing = admin.issue_token(world.signed(issue("/nowhere"))).await;
    assert!(missing.is_err());
    let issued = admin.issue_token(world.signed(issue("/shared"))).await.unwrap().into_inner();
    let token: ff2_fabric::UserToken = issued.token.parse().unwrap();
    assert_eq!((token.claims().subtree, token.claims().subtree_volume), (shared, 1));

    let mut guest = Client::mount(&world, &token, 2).await;
    let get = |inode| Op::GetAttr(pb::GetAttrOp { inode });
    for inode in [shared, inner] {
        guest.ask(get(inode)).await.unwrap();
        guest.change(mkdir(inode, "made")).await.unwrap();
    }
    for inode in [ROOT, other] {
        assert_eq!(guest.ask(get(inode)).await.unwrap_err().code, Code::StaleInode);
        let made = guest.change(mkdir(inode, "made")).await;
        assert_eq!(made.unwrap_err().code, Code::StaleInode);
    }
    let resolve = pb::ResolveOp { base: 0, path: "/../inner".into(), follow_last: true };
    let found = guest.ask(Op::Resolve(resolve)).await.unwrap().attr.unwrap();
    assert_eq!(found.inode, inner);
    // Though its user is root.
    let list = guest.ask(Op::ListSessions(pb::ListSessionsOp {})).await;
    assert_eq!(list.unwrap_err().code, Code::Forbidden);
    let refused = admin.list_users(sign(pb::ListUsersRequest {}, &token)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    world.stop_all().await;
}
