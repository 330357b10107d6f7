//! gRPC and the page: who may ask, whom to ask, what they say.

use std::time::Duration;

use ff2_proto::pb;
use tonic::{Code, Request};

use crate::world::{World, sign};

#[tokio::test(flavor = "multi_thread")]
async fn only_root_administers_and_only_the_leader_answers() {
    let world = World::start(3).await;
    let mut admin = world.admin().await;
    let bare = admin.cluster_status(Request::new(pb::ClusterStatusRequest {})).await;
    assert_eq!(bare.unwrap_err().code(), Code::Unauthenticated);
    let user = world.key.issue(pb::UserClaims { uid: 7, ..Default::default() });
    let plain = admin.cluster_status(sign(pb::ClusterStatusRequest {}, &user)).await;
    assert_eq!(plain.unwrap_err().code(), Code::PermissionDenied);
    let stranger = ff2_fabric::ClusterKey::generate().unwrap();
    let forged = stranger.issue(pb::UserClaims { root: true, ..Default::default() });
    let forged = admin.cluster_status(sign(pb::ClusterStatusRequest {}, &forged)).await;
    assert_eq!(forged.unwrap_err().code(), Code::Unauthenticated);

    let status = admin.cluster_status(world.signed(pb::ClusterStatusRequest {})).await;
    let status = status.unwrap().into_inner();
    assert!(!status.healthy);
    assert!(status.problems.iter().any(|problem| problem.contains("no chain table")));
    assert_eq!(status.routing.unwrap().nodes.len(), 3);
    assert_eq!(status.groups[0].members.len(), 3);

    let mut refused = 0;
    for node in world.metads.keys() {
        let mut other = world.admin_of(*node).await;
        let answer = other.cluster_status(world.signed(pb::ClusterStatusRequest {})).await;
        if let Err(status) = answer {
            assert_eq!(status.code(), Code::Unavailable);
            let hint = status.metadata().get("ff2-leader").unwrap().to_str().unwrap().to_owned();
            assert!(hint.starts_with("127.0.0.1:"), "{hint}");
            refused += 1;
        }
    }
    assert_eq!(refused, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_becomes_healthy_and_tells_what_is_wrong_when_it_is_not() {
    let world = World::start(1).await;
    let (mut store, _) = world.furnish().await;
    let mut admin = world.admin().await;
    let mut ask = async || {
        let request = world.signed(pb::ClusterStatusRequest {});
        admin.cluster_status(request).await.unwrap().into_inner()
    };
    let mut status = ask().await;
    assert_eq!(status.problems, Vec::<String>::new());
    while status.statfs.is_none() {
        // The leader is about to make the volume's root.
        tokio::time::sleep(Duration::from_millis(20)).await;
        status = ask().await;
    }
    let space = status.statfs.unwrap();
    assert_eq!(space.capacity_bytes, 1 << 30, "one replica");

    let node = store.node_id();
    let left = std::time::Instant::now();
    store.leave().await;
    let status = ask().await;
    assert!(left.elapsed() < Duration::from_secs(2), "a goodbye is not waited out as a lease");
    let said = status.problems.join("\n");
    assert!(said.contains(&format!("node {node} (memory")), "{said}");
    assert!(said.contains("chain 1 serves nothing"), "{said}");
    let mut admin = world.admin().await;
    let why = world.signed(pb::WhyRequest { target: 1, path: String::new() });
    let reasons = admin.why(why).await.unwrap().into_inner().reasons.join("\n");
    assert!(reasons.contains("its node is dead"), "{reasons}");

    let second = world.signed(pb::CreateVolumeRequest { name: "second".into() });
    assert_eq!(admin.create_volume(second).await.unwrap_err().code(), Code::FailedPrecondition);
    let table = world.signed(pb::CreateTableRequest { replicas: 3, ..Default::default() });
    let refusal = admin.create_table(table).await.unwrap_err();
    assert!(refusal.message().contains("add nodes"), "{refusal}");
}
