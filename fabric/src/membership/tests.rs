use super::{
    fake::{CLUSTER, Fake, peers, until},
    *,
};
use crate::ClusterKey;

fn config(metads: &[&Arc<Fake>]) -> MembershipConfig {
    let metads = metads.iter().map(|fake| fake.address.clone()).collect();
    let request = pb::JoinRequest {
        role: pb::NodeRole::Storaged.into(),
        address: "127.0.0.1:1".into(),
        ..Default::default()
    };
    MembershipConfig { metads, request }
}

async fn joined(key: &ClusterKey, metads: &[&Arc<Fake>]) -> (Membership, Arc<RoutingCache>) {
    let (peers, routing) = peers(key);
    let report = || Report { read_ops: 5, ..Report::default() };
    let membership = Membership::join(config(metads), peers, routing.clone(), report).await;
    (membership.unwrap(), routing)
}

#[tokio::test]
async fn a_node_joins_reports_and_learns_the_routing() {
    let key = ClusterKey::generate().unwrap();
    let metad = Fake::start(&key).await;
    metad.publish(3);
    let (membership, routing) = joined(&key, &[&metad]).await;
    assert_eq!((membership.node_id(), membership.cluster_id()), (NodeId(7), CLUSTER));
    assert_eq!(routing.version().0, 3, "the join's reply carries the routing");
    until("the first heartbeat is answered", || membership.lease().is_valid()).await;
    assert_eq!(metad.state.lock().heartbeats[0].read_ops, 5);
    metad.publish(9);
    until("the routing is fresh", || routing.version().0 == 9).await;
    membership.leave().await;
    let last = metad.state.lock().heartbeats.last().cloned().unwrap();
    assert!(last.leaving);
}

#[tokio::test]
async fn a_node_fences_itself_when_nobody_answers_and_serves_again_after() {
    let key = ClusterKey::generate().unwrap();
    let metad = Fake::start(&key).await;
    metad.set(|state| state.lease_ms = 400);
    let (membership, _) = joined(&key, &[&metad]).await;
    let lease = membership.lease();
    until("the lease is valid", || lease.is_valid()).await;
    metad.set(|state| state.hang = true);
    until("the lease ran out by itself", || !lease.is_valid()).await;
    metad.set(|state| state.hang = false);
    until("the lease is valid again", || lease.is_valid()).await;
}

#[tokio::test]
async fn a_forgotten_node_joins_again_under_its_id() {
    let key = ClusterKey::generate().unwrap();
    let metad = Fake::start(&key).await;
    let (membership, _) = joined(&key, &[&metad]).await;
    until("heartbeats flow", || !metad.state.lock().heartbeats.is_empty()).await;
    metad.set(|state| state.incarnation = None);
    until("it joined again", || metad.state.lock().joins.len() == 2).await;
    let again = metad.state.lock().joins[1].clone();
    assert_eq!(
        (again.node_id, again.incarnation, again.cluster_id.as_str()),
        (7, membership.incarnation(), CLUSTER)
    );
    until("the lease is valid", || membership.lease().is_valid()).await;
}

#[tokio::test]
async fn a_node_whose_place_was_taken_stops() {
    let key = ClusterKey::generate().unwrap();
    let metad = Fake::start(&key).await;
    let (membership, _) = joined(&key, &[&metad]).await;
    until("the lease is valid", || membership.lease().is_valid()).await;
    metad.set(|state| state.refuse = Some(Status::new(Code::Forbidden, "a newer incarnation")));
    let status = membership.refused().await;
    assert_eq!(status.code, Code::Forbidden);
    assert!(!membership.lease().is_valid());
}

#[tokio::test]
async fn heartbeats_follow_the_leader() {
    let key = ClusterKey::generate().unwrap();
    let (first, second) = (Fake::start(&key).await, Fake::start(&key).await);
    let leader = second.address.clone();
    first.set(|state| state.leader = Some(leader));
    let (membership, _) = joined(&key, &[&first, &second]).await;
    until("the second leads", || second.state.lock().heartbeats.len() > 2).await;
    assert!(first.state.lock().heartbeats.is_empty());
    // The leader dies; the other one takes over and knows nobody.
    second.stop();
    first.set(|state| state.leader = None);
    until("the first leads", || first.state.lock().heartbeats.len() > 2).await;
    assert!(membership.lease().is_valid());
}

#[tokio::test]
async fn a_change_is_told_at_once() {
    let key = ClusterKey::generate().unwrap();
    let metad = Fake::start(&key).await;
    metad.set(|state| state.heartbeat_ms = 10_000);
    let (membership, _) = joined(&key, &[&metad]).await;
    let count = || metad.state.lock().heartbeats.len();
    until("the first heartbeat", || count() == 1).await;
    membership.heartbeat_now();
    until("the second, long before its time", || count() == 2).await;
    membership.heartbeat_trigger()();
    until("the third", || count() == 3).await;
}

#[tokio::test]
async fn a_wrong_cluster_is_final() {
    let key = ClusterKey::generate().unwrap();
    let metad = Fake::start(&key).await;
    metad.set(|state| state.refuse = Some(Status::new(Code::WrongCluster, "other disks")));
    let (peers, routing) = peers(&key);
    let outcome = Membership::join(config(&[&metad]), peers, routing, Report::default).await;
    assert_eq!(outcome.unwrap_err().code, Code::WrongCluster);
}

#[tokio::test]
async fn the_watch_polls_once_and_hurries_when_it_hears_of_news() {
    let key = ClusterKey::generate().unwrap();
    let metad = Fake::start(&key).await;
    metad.publish(1);
    let (peers, routing) = peers(&key);
    let watch = RoutingWatch::start(vec![metad.address.clone()], peers, routing.clone());
    until("the first poll", || routing.version().0 == 1).await;
    until("a long poll waits", || metad.state.lock().polls.len() == 2).await;
    assert!(metad.state.lock().polls[1].wait_ms > 1_000, "it does not spin");
    // Somebody heard of version 2 before this metad: it is asked again at once, not in ten seconds.
    routing.heard_of(ff2_proto::RoutingVersion(2));
    until("it hurries", || metad.state.lock().polls.iter().any(|poll| poll.wait_ms == 0)).await;
    metad.publish(2);
    until("the news", || routing.version().0 == 2).await;
    watch.stop();
}
