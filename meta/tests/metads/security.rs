//! Roles of tokens, the audit log, and export rules.

use ff2_fabric::Identity;
use ff2_proto::{Code, pb};
use pb::{ExportAccess, Squash, TokenRole, ns_request::Op};
use serde_json::Value;

use crate::world::{Client, World, sign};

const ROOT: u64 = 1;

fn token(world: &World, role: TokenRole) -> ff2_fabric::UserToken {
    world.key.issue(pb::UserClaims {
        uid: 7,
        name: "ann".into(),
        token_id: 90,
        role: role.into(),
        ..Default::default()
    })
}

async fn audit(world: &World) -> Vec<Value> {
    let mut lines = Vec::new();
    for node in world.metads.keys() {
        let request = world.signed(pb::ReadAuditRequest::default());
        let reply = world.admin_of(*node).await.read_audit(request).await.unwrap().into_inner();
        assert_eq!(reply.node, *node);
        lines.extend(reply.lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_bound_what_a_token_administers_and_all_of_it_is_recorded() {
    let world = World::start(3).await;
    let mut admin = world.admin().await;
    let [viewer, operator] =
        [TokenRole::Viewer, TokenRole::Operator].map(|role| token(&world, role));
    admin.cluster_status(sign(pb::ClusterStatusRequest {}, &viewer)).await.unwrap();
    let refused = admin.start_scrub(sign(pb::StartScrubRequest {}, &viewer)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert!(refused.message().contains("role operator"), "{refused}");
    admin.start_scrub(sign(pb::StartScrubRequest {}, &operator)).await.unwrap();
    let user = pb::User { uid: 8, name: "bob".into(), ..Default::default() };
    let put = pb::PutUserRequest { user: Some(user) };
    let refused = admin.put_user(sign(put.clone(), &operator)).await.unwrap_err();
    assert!(refused.message().contains("role admin"), "{refused}");
    admin.put_user(sign(put, &token(&world, TokenRole::Admin))).await.unwrap();
    let nobody = pb::IssueTokenRequest { uid: 4_000, ..Default::default() };
    admin.issue_token(world.signed(nobody)).await.unwrap_err();
    let plan = pb::RebalanceRequest { dry_run: true, ..Default::default() };
    admin.rebalance(sign(plan, &viewer)).await.unwrap();
    let confined = pb::IssueTokenRequest {
        uid: 8,
        role: TokenRole::Operator.into(),
        subtree: "/".into(),
        ..Default::default()
    };
    admin.issue_token(world.signed(confined)).await.unwrap_err();

    // Refusals come without being waited for.
    let mut lines = audit(&world).await;
    while lines.iter().filter(|line| line["outcome"] == "refused").count() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        lines = audit(&world).await;
    }
    let said = |call: &str, outcome: &str| {
        lines.iter().find(|line| line["call"] == call && line["outcome"] == outcome)
    };
    let scrub = said("start_scrub", "begun").unwrap();
    assert_eq!((&scrub["user"], &scrub["role"]), (&"ann".into(), &"operator".into()));
    assert_eq!(scrub["token"], 90);
    assert!(scrub["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{scrub}");
    let outcome = |begun: &Value| {
        let ended = |line: &&Value| line["id"] == begun["id"] && line["outcome"] != "begun";
        lines.iter().find(ended).unwrap().clone()
    };
    assert_eq!(outcome(scrub)["outcome"], "done");
    let issue = said("issue_token", "begun").unwrap();
    assert_eq!(issue["arguments"]["uid"], 4_000);
    assert_eq!(outcome(issue)["outcome"], "failed");
    assert!(said("start_scrub", "refused").is_some() && said("put_user", "refused").is_some());
    assert!(said("put_user", "begun").is_some());
    assert!(said("cluster_status", "begun").is_none() && said("rebalance", "begun").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_operators_and_viewers_open_no_files() {
    let world = World::start(1).await;
    let (_store, _) = world.furnish().await;
    for role in [TokenRole::Operator, TokenRole::Viewer] {
        let (peers, _) = world.peers(Identity::User(token(&world, role)));
        let client = ff2_fabric::NamespaceClient::new(peers.channel(&world.addresses()[0]));
        let request = pb::NsRequest { volume: 1, ..Default::default() };
        let call = ff2_fabric::Call::within(std::time::Duration::from_secs(2));
        let refused = client.execute(&request, call).await.unwrap_err();
        assert_eq!(refused.code, Code::Forbidden);
        assert!(refused.detail.contains("opens no files"), "{refused}");
    }
    // Root's files without root's rights over the cluster.
    let files = world.key.issue(pb::UserClaims {
        root: true,
        role: TokenRole::Files.into(),
        ..Default::default()
    });
    Client::mount(&world, &files, 3).await.ask(attr(ROOT)).await.unwrap();
    let status = sign(pb::ClusterStatusRequest {}, &files);
    let refused = world.admin().await.cluster_status(status).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
}

fn attr(inode: u64) -> Op {
    Op::GetAttr(pb::GetAttrOp { inode })
}

fn create(name: &str) -> Op {
    Op::Create(pb::CreateOp {
        parent: ROOT,
        name: name.as_bytes().to_vec().into(),
        mode: 0o600,
        exclusive: true,
        read: true,
        write: true,
        ..Default::default()
    })
}

async fn set(world: &World, clients: &str, access: ExportAccess, squash: Squash) {
    let rule = pb::ExportRule {
        clients: clients.into(),
        access: access.into(),
        squash: squash.into(),
        anon_uid: 65_534,
        anon_gid: 65_534,
    };
    let request = pb::SetExportsRequest { volume: "default".into(), rules: vec![rule] };
    world.admin().await.set_exports(world.signed(request)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn export_rules_hold_for_open_sessions() {
    let world = World::start(1).await;
    let (_store, _) = world.furnish().await;
    let root = world.key.issue(pb::UserClaims { root: true, ..Default::default() });
    let mut client = Client::mount(&world, &root, 1).await;
    let made = client.change(create("secret")).await.unwrap();
    let secret = made.attr.unwrap().inode;
    let before = world.key.check_grant(&made.grant, 0).unwrap();
    assert_eq!((before.volume, before.ruled_at), (1, 0));
    let open = |write: bool| {
        Op::Open(pb::OpenOp { inode: secret, read: !write, write, ..Default::default() })
    };

    set(&world, "127.0.0.0/8", ExportAccess::ReadOnly, Squash::Nobody).await;
    client.ask(open(false)).await.unwrap();
    assert_eq!(client.change(open(true)).await.unwrap_err().code, Code::ReadOnly);
    assert_eq!(client.change(create("new")).await.unwrap_err().code, Code::ReadOnly);
    let read = Op::ReadInline(pb::ReadInlineOp { inode: secret, grant: made.grant.clone() });
    assert_eq!(client.ask(read).await.unwrap_err().code, Code::GrantExpired);

    set(&world, "127.0.0.0/8", ExportAccess::ReadWrite, Squash::Root).await;
    assert_eq!(client.ask(open(false)).await.unwrap_err().code, Code::AccessDenied);
    assert_eq!(client.change(create("new")).await.unwrap_err().code, Code::AccessDenied);
    client.ask(attr(secret)).await.unwrap();

    set(&world, "10.0.0.0/8", ExportAccess::ReadWrite, Squash::Nobody).await;
    let refused = client.ask(attr(ROOT)).await.unwrap_err();
    assert_eq!(refused.code, Code::AccessDenied);
    assert!(refused.detail.contains("ff2ctl volume export"), "{refused}");

    let none = pb::SetExportsRequest { volume: "default".into(), rules: vec![] };
    world.admin().await.set_exports(world.signed(none)).await.unwrap();
    let opened = client.ask(open(false)).await.unwrap();
    assert!(world.key.check_grant(&opened.grant, 0).unwrap().ruled_at > 0);
    client.change(create("new")).await.unwrap();
}
