use std::collections::BTreeSet;

use ff2_proto::RoutingVersion;
use pb::cluster_command::Fact;

use super::*;
use crate::{
    cluster::{bootstrap, delta, tests::Cluster},
    kv::{Kv, KvRead, MemKv},
};

const TIMES: RestoreTimes = RestoreTimes { taken_at_s: 1_764_000_000, at_s: 1_764_000_100 };

#[test]
fn nobody_is_believed_to_serve_and_all_numbers_are_new() {
    let cluster = Cluster::serving(4, 3, 8);
    let before = cluster.routing();
    let mut restored = Cluster::restored(cluster.keys(), TIMES);
    let after = restored.routing();
    assert!(after.version.0 >= TIMES.at_s << 24 && after.cluster_id == before.cluster_id);
    assert_eq!(bootstrap(&restored.keys()).unwrap().cluster_id, before.cluster_id);
    for (id, chain) in &after.chains {
        assert_eq!(chain.restored, before.chains[id].version);
        assert!(chain.version >= TIMES.at_s << 24);
        let waits = |m: &pb::ChainMember| m.state() == PublicState::Lastsrv;
        assert!(chain.members.iter().all(waits), "{chain:?}");
        let nodes = |chain: &pb::Chain| chain.members.iter().map(|m| m.node).collect::<Vec<_>>();
        assert_eq!(nodes(chain), nodes(&before.chains[id]), "as placed");
    }
    assert!(after.nodes.values().all(|node| !node.alive && node.incarnation == 0));
    // Whoever joins as a new node, and whatever is made, gets a number that nobody has.
    let mut request = Cluster::join_request(&after, 101);
    (request.node_id, request.address, request.disks) = (0, "elsewhere:1".into(), Vec::new());
    let new = restored.ok(Fact::Join(request)).node_id;
    assert_eq!(u64::from(new), TIMES.at_s);
}

#[test]
fn whoever_knows_what_was_before_is_told_everything() {
    let cluster = Cluster::serving(3, 3, 2);
    let restored = Cluster::restored(cluster.keys(), TIMES).routing();
    for since in [0, 1, cluster.routing().version.0 + 500, restored.version.0 - 1, u64::MAX] {
        let delta = delta(&restored, RoutingVersion(since));
        assert_eq!((delta.since, delta.chains.len()), (0, 2), "since {since}");
    }
    assert_eq!(delta(&restored, restored.version).chains.len(), 0);
}

#[test]
fn a_node_that_joined_after_the_backup_may_come_back_and_others_may_not() {
    let cluster = Cluster::serving(3, 3, 2);
    let mut restored = Cluster::restored(cluster.keys(), TIMES);
    let mut request = Cluster::join_request(&restored.routing(), 101);
    request.node_id = 104;
    request.address = "later:1".into();
    request.disks[0].uuid = vec![4; 16].into();
    assert_eq!(restored.ok(Fact::Join(request.clone())).node_id, 104);
    request.node_id = u32::try_from(TIMES.at_s).unwrap() + 7;
    assert_eq!(restored.refused(Fact::Join(request)), Code::NotFound);
}

/// All founding members compute it by themselves.
#[test]
fn equal_backups_become_equal_states_and_two_restores_differ() {
    let keys = Cluster::serving(3, 3, 4).keys();
    let state = |times| Cluster::restored(keys.clone(), times).keys().hash();
    assert_eq!(state(TIMES), state(TIMES));
    assert_ne!(state(TIMES), state(RestoreTimes { at_s: TIMES.at_s + 1, ..TIMES }));
}

/// A cluster that was restored is backed up and restored as any other.
#[test]
fn restores_follow_each_other() {
    let first = Cluster::restored(Cluster::serving(3, 3, 4).keys(), TIMES);
    let later = RestoreTimes { taken_at_s: TIMES.at_s + 5, at_s: TIMES.at_s + 9 };
    let second = Cluster::restored(first.keys(), later).routing();
    for (id, chain) in &second.chains {
        assert!(chain.version > first.routing().chains[id].version);
    }
    let restored = second.restored.unwrap();
    assert_eq!(u64::from(restored.nodes_from), TIMES.at_s);
    assert!(restored.nodes_from < restored.nodes_below);
    // A clock that went back.
    let mut kv = first.keys();
    let early = RestoreTimes { at_s: TIMES.at_s - 50, ..TIMES };
    assert_eq!(restore(&mut kv, early).unwrap_err().code, Code::InvalidArgument);
}

#[test]
fn damaged_facts_are_refused_not_stumbled_over() {
    let keys = Cluster::serving(3, 3, 2).keys();
    let letters: BTreeSet<u8> = keys.pairs().map(|(key, _)| key[0]).collect();
    assert!(letters.contains(&b'n') && letters.contains(&b'c'));
    let all: Vec<_> = keys.scan(b"", &[u8::MAX], usize::MAX);
    for (key, _) in all {
        let mut kv = keys.clone();
        kv.put(&key, Bytes::from_static(b"\xff\xff\xff"));
        assert_eq!(restore(&mut kv, TIMES).unwrap_err().code, Code::Corrupt, "{key:?}");
    }
    let mut empty = MemKv::new();
    assert_eq!(restore(&mut empty, TIMES).unwrap_err().code, Code::InvalidArgument);
}
