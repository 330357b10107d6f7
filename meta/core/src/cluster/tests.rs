use std::collections::BTreeMap;

use ff2_proto::{ChainId, Code, NodeId, RoutingVersion, TableId, TargetId, routing::TableExt};
use pb::{LocalState, NodeRole, PublicState, cluster_command::Fact};
use proptest::prelude::*;

use super::*;
use crate::kv::MemKv;

/// A machine with its keys, and stores that answer for its targets.
pub(super) struct Cluster {
    machine: ClusterMachine,
    kv: MemKv,
    /// What the stores of all nodes have: generation by target.
    stores: BTreeMap<u64, u64>,
}

impl Cluster {
    pub(super) fn new() -> Self {
        let mut cluster =
            Self { machine: ClusterMachine::new(), kv: MemKv::new(), stores: BTreeMap::new() };
        cluster.ok(Fact::Bootstrap(pb::Bootstrap {
            level: 0,
            cluster_id: "test".into(),
            lease_ms: 3_000,
            heartbeat_ms: 500,
        }));
        cluster
    }

    /// Storage nodes from 101 with one disk each, and chains over them that all serve.
    pub(super) fn serving(nodes: u32, replicas: u32, chains: u32) -> Self {
        let mut cluster = Self::new();
        for number in 0..nodes {
            let reply = cluster.ok(Fact::Join(new_node(number)));
            assert_eq!(reply.node_id, 101 + number);
        }
        let placed =
            place(&placeable_disks(&cluster.routing()), &Leaves::new(), replicas, chains).unwrap();
        cluster.ok(Fact::CreateTable(pb::CreateTable {
            replicas,
            chains: placed,
            ..Default::default()
        }));
        for number in 0..nodes {
            cluster.report(101 + number);
        }
        cluster
    }

    pub(super) fn apply(&mut self, fact: Fact) -> pb::ClusterReply {
        let command = pb::ClusterCommand { now_ms: 1, fact: Some(fact), level: 1 }.encode_to_vec();
        let reply = self.machine.apply(1, &command, &mut self.kv);
        self.machine.check();
        pb::ClusterReply::decode(reply).unwrap()
    }

    pub(super) fn ok(&mut self, fact: Fact) -> pb::ClusterReply {
        let shown = format!("{fact:?}");
        let reply = self.apply(fact);
        assert_eq!(ff2_proto::status::check(reply.status.clone()), Ok(()), "{shown}");
        reply
    }

    pub(super) fn join(&mut self, number: u32) {
        self.ok(Fact::Join(new_node(number)));
    }

    pub(super) fn refused(&mut self, fact: Fact) -> Code {
        let before = (self.kv.hash(), self.routing().version);
        let reply = self.apply(fact);
        assert_eq!(before, (self.kv.hash(), self.routing().version), "a refusal changes nothing");
        ff2_proto::status::check(reply.status).unwrap_err().code
    }

    pub(super) fn routing(&self) -> Arc<Routing> {
        self.machine.view()
    }

    /// What a backup takes along.
    pub(super) fn keys(&self) -> MemKv {
        self.kv.clone()
    }

    /// A new group 0 with the keys of a backup.
    pub(super) fn restored(mut kv: MemKv, times: RestoreTimes) -> Self {
        restore(&mut kv, times).unwrap();
        let mut machine = ClusterMachine::new();
        StateMachine::restore(&mut machine, &kv);
        machine.check();
        Self { machine, kv, stores: BTreeMap::new() }
    }

    pub(super) fn join_request(routing: &Routing, node: u32) -> pb::JoinRequest {
        let node = &routing.nodes[&NodeId(node)];
        pb::JoinRequest {
            node_id: node.id,
            role: node.role,
            address: node.address.clone(),
            incarnation: node.incarnation,
            disks: node.disks.clone(),
            ..Default::default()
        }
    }

    /// What a node says whose stores are all there.
    pub(super) fn report_of(&self, node: u32) -> Vec<pb::TargetReport> {
        let routing = self.routing();
        let mine =
            routing.targets.values().filter(|target| target.node == node && target.chain != 0);
        mine.map(|target| pb::TargetReport {
            target: target.id,
            local_state: LocalState::Online.into(),
            generation: self.stores.get(&target.id).copied().unwrap_or(1_000 + target.id),
            chain_version: routing.chains[&ChainId(target.chain)].version,
            ..Default::default()
        })
        .collect()
    }

    pub(super) fn report(&mut self, node: u32) {
        let targets = self.report_of(node);
        self.ok(Fact::TargetsReported(pb::TargetsReported {
            node_id: node,
            targets,
            disks: Vec::new(),
        }));
    }

    pub(super) fn report_complete(&mut self, node: u32) {
        let mut targets = self.report_of(node);
        targets.iter_mut().for_each(|target| target.set_local_state(LocalState::UpToDate));
        self.ok(Fact::TargetsReported(pb::TargetsReported {
            node_id: node,
            targets,
            disks: Vec::new(),
        }));
    }

    pub(super) fn nodes_changed(&mut self, dead: &[u32], alive: &[u32]) {
        let fact = pb::NodesChanged { dead: dead.to_vec(), alive: alive.to_vec() };
        self.ok(Fact::NodesChanged(fact));
    }

    pub(super) fn states_by_target(&self) -> Vec<PublicState> {
        self.routing().targets.values().map(pb::Target::public_state).collect()
    }
}

fn new_node(number: u32) -> pb::JoinRequest {
    let disk = pb::Disk {
        uuid: vec![number as u8; 16].into(),
        capacity_bytes: 1 << 30,
        ..Default::default()
    };
    pb::JoinRequest {
        role: NodeRole::Storaged.into(),
        address: format!("127.0.0.1:{}", 7000 + number),
        incarnation: 5,
        disks: vec![disk],
        ..Default::default()
    }
}

#[test]
fn a_new_chain_serves_when_all_its_stores_are_made() {
    let mut cluster = Cluster::new();
    for number in 0..3 {
        cluster.ok(Fact::Join(new_node(number)));
    }
    let chains = place(&placeable_disks(&cluster.routing()), &Leaves::new(), 3, 4).unwrap();
    cluster.ok(Fact::CreateTable(pb::CreateTable { replicas: 3, chains, ..Default::default() }));
    cluster.report(101);
    cluster.report(102);
    assert!(cluster.states_by_target().iter().all(|&state| state == PublicState::Lastsrv));
    cluster.report(103);
    assert!(cluster.states_by_target().iter().all(|&state| state == PublicState::Serving));
    let routing = cluster.routing();
    assert!(routing.targets.values().all(|target| target.generation == 1_000 + target.id));
    let heads: std::collections::BTreeSet<u32> =
        routing.chains.values().map(|chain| chain.members[0].node).collect();
    assert_eq!(heads.len(), 3, "the heads are spread as placed");
}

#[test]
fn an_extended_table_has_a_new_version_and_keeps_the_chains_of_the_old_one() {
    let mut cluster = Cluster::serving(3, 3, 4);
    cluster.ok(Fact::Join(new_node(3)));
    let extend = |cluster: &Cluster, version| {
        let chains = place(&placeable_disks(&cluster.routing()), &Leaves::new(), 3, 2).unwrap();
        Fact::ExtendTable(pb::ExtendTable { table: 1, chains, version })
    };
    let fact = extend(&cluster, 1);
    cluster.ok(fact.clone());
    let table = cluster.routing().tables[&TableId(1)].clone();
    assert_eq!((table.version, table.sizes.as_slice()), (2, [4, 6].as_slice()));
    assert_eq!(table.chains_at(1).unwrap(), [1, 2, 3, 4]);
    assert_eq!(table.chains_at(2).unwrap(), [1, 2, 3, 4, 5, 6]);
    let on_new_node = |chain: u32| {
        cluster.routing().chains[&ChainId(chain)].members.iter().any(|m| m.node == 104)
    };
    assert_eq!([1, 4, 5, 6].map(on_new_node), [false, false, true, true]);
    let reply = cluster.apply(fact);
    assert_eq!(reply.status.unwrap().code(), Code::Busy, "its placement is out of date");
    let unknown = pb::ExtendTable { table: 9, ..Default::default() };
    let reply = cluster.apply(Fact::ExtendTable(unknown));
    assert_eq!(reply.status.unwrap().code(), Code::NotFound);
}

#[test]
fn a_member_that_cannot_be_there_does_not_keep_a_new_chain_from_serving() {
    let mut cluster = Cluster::new();
    for number in 0..3 {
        cluster.ok(Fact::Join(new_node(number)));
    }
    let chains = place(&placeable_disks(&cluster.routing()), &Leaves::new(), 3, 1).unwrap();
    cluster.ok(Fact::CreateTable(pb::CreateTable { replicas: 3, chains, ..Default::default() }));
    cluster.report(101);
    cluster.report(102);
    cluster.nodes_changed(&[103], &[]);
    let mut states = cluster.states_by_target();
    states.sort_unstable();
    assert_eq!(states, [PublicState::Serving, PublicState::Serving, PublicState::Offline]);
    cluster.nodes_changed(&[], &[103]);
    cluster.report(103);
    assert!(cluster.states_by_target().contains(&PublicState::Syncing));
    cluster.report_complete(103);
    assert_eq!(cluster.states_by_target(), [PublicState::Serving; 3]);
}

#[test]
fn a_proof_of_another_version_does_not_end_a_sync() {
    let mut cluster = Cluster::serving(3, 3, 1);
    cluster.nodes_changed(&[103], &[]);
    cluster.nodes_changed(&[], &[103]);
    cluster.report(103);
    let mut stale = cluster.report_of(103);
    stale[0].set_local_state(LocalState::UpToDate);
    stale[0].chain_version -= 1;
    let fact = pb::TargetsReported { node_id: 103, targets: stale, disks: Vec::new() };
    cluster.ok(Fact::TargetsReported(fact));
    assert!(cluster.states_by_target().contains(&PublicState::Syncing));
}

#[test]
fn a_restart_that_nobody_judged_leaves_service() {
    let mut cluster = Cluster::serving(3, 3, 2);
    let again =
        pb::JoinRequest { incarnation: 6, ..Cluster::join_request(&cluster.routing(), 102) };
    cluster.ok(Fact::Join(again.clone()));
    let routing = cluster.routing();
    let own = || routing.targets.values().filter(|target| target.node == 102);
    assert!(own().all(|target| target.public_state() == PublicState::Offline));
    // The same join again is no second restart.
    cluster.report(102);
    cluster.ok(Fact::Join(again));
    let routing = cluster.routing();
    let own = routing.targets.values().filter(|target| target.node == 102);
    assert!(own.map(pb::Target::public_state).all(|state| state == PublicState::Syncing));
}

#[test]
fn the_only_last_serving_member_is_waited_for_until_its_own_data_returns() {
    let mut cluster = Cluster::serving(2, 2, 1);
    cluster.nodes_changed(&[101], &[]);
    cluster.nodes_changed(&[102], &[]);
    let last = cluster.routing().chains[&ChainId(1)].members[0];
    assert_eq!(last.state(), PublicState::Lastsrv);
    // It returns with an empty store, twice; then somebody finds the old disk.
    cluster.stores.insert(last.target, 7);
    cluster.nodes_changed(&[], &[101, 102]);
    for _ in 0..2 {
        cluster.report(101);
        cluster.report(102);
        let member = cluster.routing().chains[&ChainId(1)].members[0];
        assert_eq!((member.target, member.state()), (last.target, PublicState::Lastsrv));
    }
    cluster.stores.remove(&last.target);
    cluster.report(last.node);
    let chain = cluster.routing().chains[&ChainId(1)].clone();
    assert_eq!(chain.members[0].target, last.target);
    assert_eq!(chain.members[0].state(), PublicState::Serving);
    assert_eq!(chain.members[1].state(), PublicState::Syncing);
}

#[test]
fn a_replaced_disk_syncs_from_the_start() {
    let mut cluster = Cluster::serving(3, 3, 1);
    let target = cluster.routing().targets.values().find(|t| t.node == 103).unwrap().id;
    cluster.nodes_changed(&[103], &[]);
    cluster.stores.insert(target, 9);
    cluster.nodes_changed(&[], &[103]);
    cluster.report(103);
    let record = cluster.routing().targets[&TargetId(target)].clone();
    assert_eq!((record.public_state(), record.generation), (PublicState::Syncing, 9));
}

fn revive(chain: u32, target: u64, generation: u64, force: bool) -> Fact {
    Fact::ReviveChain(pb::ReviveChain { chain, target, generation, force })
}

#[test]
fn a_chain_is_revived_from_an_older_replica_when_told_so() {
    let mut cluster = Cluster::serving(3, 3, 1);
    let target_on = |cluster: &Cluster, node: u32| {
        cluster.routing().targets.values().find(|target| target.node == node).unwrap().id
    };
    let [older, oldest, last] = [101, 102, 103].map(|node| target_on(&cluster, node));
    assert_eq!(
        cluster.refused(revive(1, older, 0, true)),
        Code::InvalidArgument,
        "the chain serves"
    );
    for node in [102, 101, 103] {
        cluster.nodes_changed(&[node], &[]);
    }
    assert_eq!(
        cluster.refused(revive(1, older, 0, true)),
        Code::InvalidArgument,
        "its node is dead"
    );
    cluster.nodes_changed(&[], &[101, 102]);
    cluster.report(101);
    cluster.report(102);
    assert_eq!(
        cluster.refused(revive(1, older, 0, false)),
        Code::InvalidArgument,
        "the last may return"
    );
    assert_eq!(cluster.refused(revive(1, 77, 0, true)), Code::InvalidArgument);
    assert_eq!(cluster.refused(revive(9, older, 0, true)), Code::NotFound);

    // It does return, but with an empty store.
    cluster.stores.insert(last, 9);
    cluster.nodes_changed(&[], &[103]);
    cluster.report(103);
    let before = cluster.routing().chains[&ChainId(1)].version;
    cluster.ok(revive(1, older, 0, false));
    let chain = cluster.routing().chains[&ChainId(1)].clone();
    assert_eq!(chain.version, before + 1);
    assert_eq!((chain.members[0].target, chain.members[0].state()), (older, PublicState::Serving));
    let routing = cluster.routing();
    for given_up in [oldest, last] {
        assert_eq!(
            routing.targets[&TargetId(given_up)].chain,
            0,
            "it may be ahead of the new head"
        );
    }
    let nodes: std::collections::BTreeSet<u32> = chain.members.iter().map(|m| m.node).collect();
    assert_eq!(nodes, [101, 102, 103].into(), "each is made anew where it was");
    for _ in 0..3 {
        for node in [101, 102, 103] {
            cluster.report_complete(node);
        }
    }
    let chain = cluster.routing().chains[&ChainId(1)].clone();
    assert!(chain.members.iter().all(|member| member.state() == PublicState::Serving));
}

#[test]
fn a_complete_replica_is_given_up_only_by_force() {
    let mut cluster = Cluster::serving(2, 2, 1);
    cluster.nodes_changed(&[101], &[]);
    cluster.nodes_changed(&[102], &[]);
    let [last, other] = cluster.routing().chains[&ChainId(1)].members[..] else { panic!("two") };
    cluster.nodes_changed(&[], &[other.node]);
    cluster.report(other.node);
    assert_eq!(cluster.refused(revive(1, other.target, 0, false)), Code::InvalidArgument);
    cluster.ok(revive(1, other.target, 0, true));
    cluster.nodes_changed(&[], &[last.node]);
    cluster.report(last.node);
    let chain = cluster.routing().chains[&ChainId(1)].clone();
    let states: Vec<_> = chain.members.iter().map(|m| (m.node, m.state())).collect();
    let expected = [(other.node, PublicState::Serving), (last.node, PublicState::Syncing)];
    assert_eq!(states, expected);
    assert_ne!(chain.members[1].target, last.target);
}

#[test]
fn a_chain_without_any_data_left_begins_empty() {
    let mut cluster = Cluster::serving(1, 1, 1);
    let target = cluster.routing().chains[&ChainId(1)].members[0].target;
    cluster.nodes_changed(&[101], &[]);
    cluster.stores.insert(target, 9);
    cluster.nodes_changed(&[], &[101]);
    cluster.report(101);
    assert_eq!(cluster.states_by_target(), [PublicState::Lastsrv]);
    assert_eq!(
        cluster.refused(revive(1, target, 0, false)),
        Code::InvalidArgument,
        "no store is known"
    );
    cluster.ok(revive(1, target, 9, false));
    cluster.report(101);
    assert_eq!(cluster.states_by_target(), [PublicState::Serving]);
}

fn second_disk(cluster: &mut Cluster, node: u32) -> Vec<u8> {
    let uuid = vec![200; 16];
    let mut request = Cluster::join_request(&cluster.routing(), node);
    request.disks.push(pb::Disk { index: 1, uuid: uuid.clone().into(), ..Default::default() });
    cluster.ok(Fact::Join(request));
    uuid
}

#[test]
fn a_lost_disks_target_is_replaced_by_a_new_one() {
    let mut cluster = Cluster::serving(4, 3, 1);
    let chain = cluster.routing().chains[&ChainId(1)].clone();
    let [_, _, last] = chain.members[..] else { panic!("three replicas") };
    let uuid = second_disk(&mut cluster, last.node);
    let replace = |target, node, disk_uuid: &[u8]| {
        let disk_uuid = bytes::Bytes::copy_from_slice(disk_uuid);
        Fact::ReplaceTarget(pb::ReplaceTarget { target, node, disk_uuid })
    };
    let good = replace(last.target, last.node, &uuid);
    assert_eq!(cluster.refused(good.clone()), Code::Busy, "it serves");
    cluster.nodes_changed(&[last.node], &[]);
    cluster.nodes_changed(&[], &[last.node]);
    let before = cluster.routing().chains[&ChainId(1)].clone();
    assert_eq!(before.members[2].state(), PublicState::Offline);
    let other = chain.members[0].node;
    let disk = cluster.routing().nodes[&NodeId(other)].disks[0].uuid.clone();
    assert_eq!(cluster.refused(replace(last.target, other, &disk)), Code::InvalidArgument);
    assert_eq!(cluster.refused(replace(last.target, last.node, &[7; 16])), Code::NotFound);
    assert_eq!(cluster.refused(replace(99, last.node, &uuid)), Code::NotFound);
    assert_eq!(cluster.refused(replace(last.target, 77, &uuid)), Code::NotFound);
    let draining = |draining| Fact::SetDraining(pb::SetDraining { node: last.node, draining });
    cluster.ok(draining(true));
    assert_eq!(cluster.refused(good.clone()), Code::InvalidArgument, "gets nothing new");
    cluster.ok(draining(false));

    let new = cluster.ok(good.clone()).target;
    let after = cluster.routing().chains[&ChainId(1)].clone();
    assert_eq!(after.version, before.version + 1);
    let member = after.members[2];
    assert_eq!((member.target, member.state()), (new, PublicState::Offline));
    let routing = cluster.routing();
    let given_up = &routing.targets[&TargetId(last.target)];
    assert_eq!((given_up.chain, given_up.node), (0, 0), "its node drops the store");
    assert_eq!(cluster.refused(good), Code::NotFound, "a second time");

    cluster.report(last.node);
    assert_eq!(cluster.routing().targets[&TargetId(new)].public_state(), PublicState::Syncing);
    cluster.report_complete(last.node);
    let chain = cluster.routing().chains[&ChainId(1)].clone();
    assert!(chain.members.iter().all(|member| member.state() == PublicState::Serving));
}

#[test]
fn nothing_is_replaced_in_a_chain_that_serves_nothing() {
    let mut cluster = Cluster::serving(3, 2, 1);
    let members = cluster.routing().chains[&ChainId(1)].members.clone();
    cluster.nodes_changed(&[members[1].node], &[]);
    cluster.nodes_changed(&[members[0].node], &[]);
    let free = (101..104).find(|node| members.iter().all(|m| m.node != *node)).unwrap();
    let disk_uuid = cluster.routing().nodes[&NodeId(free)].disks[0].uuid.clone();
    for member in &members {
        let fact =
            pb::ReplaceTarget { target: member.target, node: free, disk_uuid: disk_uuid.clone() };
        assert_eq!(cluster.refused(Fact::ReplaceTarget(fact)), Code::Busy);
    }
}

#[test]
fn a_removed_metad_joins_again_only_after_it_was_readmitted() {
    let mut cluster = Cluster::new();
    let join = Fact::Join(pb::JoinRequest {
        node_id: 3,
        role: NodeRole::Metad.into(),
        address: "m:3".into(),
        incarnation: 1,
        ..Default::default()
    });
    let readmit = |node| Fact::ReadmitNode(pb::ReadmitNode { node });
    cluster.ok(join.clone());
    assert_eq!(cluster.refused(readmit(3)), Code::NotFound, "it is there");
    cluster.ok(Fact::RemoveNode(pb::RemoveNode { node: 3 }));
    assert_eq!(cluster.refused(join.clone()), Code::Forbidden);
    cluster.ok(readmit(3));
    let routing = cluster.routing();
    let node = &routing.nodes[&NodeId(3)];
    assert_eq!((node.role(), node.alive), (NodeRole::Metad, false));
    cluster.ok(join);
    assert_eq!(cluster.ok(Fact::Join(new_node(0))).node_id, 101);
    cluster.nodes_changed(&[101], &[]);
    cluster.ok(Fact::RemoveNode(pb::RemoveNode { node: 101 }));
    assert_eq!(cluster.refused(readmit(101)), Code::InvalidArgument);
}

#[test]
fn joins_are_checked() {
    let mut cluster = Cluster::serving(1, 1, 1);
    let routing = cluster.routing();
    let known = Cluster::join_request(&routing, 101);
    let with = |change: fn(&mut pb::JoinRequest)| {
        let mut request = known.clone();
        change(&mut request);
        Fact::Join(request)
    };
    let cases: [(Fact, Code); 6] = [
        (with(|r| r.cluster_id = "other".into()), Code::WrongCluster),
        (with(|r| r.node_id = 150), Code::NotFound),
        (with(|r| r.role = NodeRole::Metad.into()), Code::Forbidden),
        (with(|r| r.role = NodeRole::Client.into()), Code::Forbidden),
        (with(|r| r.address.clear()), Code::InvalidArgument),
        (with(|r| r.disks.push(r.disks[0].clone())), Code::InvalidArgument),
    ];
    for (fact, code) in cases {
        assert_eq!(cluster.refused(fact.clone()), code, "{fact:?}");
    }
    // A first join whose answer was lost finds its id again.
    let first = cluster.ok(Fact::Join(new_node(9))).node_id;
    assert_eq!(cluster.ok(Fact::Join(new_node(9))).node_id, first);
    // So does one that crashed before it could write its id down, but not a new machine at the address.
    let again = pb::JoinRequest { incarnation: 77, ..new_node(9) };
    assert_eq!(cluster.ok(Fact::Join(again.clone())).node_id, first);
    let disk = pb::Disk { uuid: vec![0xee; 16].into(), ..Default::default() };
    let other = pb::JoinRequest { incarnation: 78, disks: vec![disk], ..again };
    assert_ne!(cluster.ok(Fact::Join(other)).node_id, first);
    let metad = pb::JoinRequest {
        node_id: 1,
        role: NodeRole::Metad.into(),
        address: "m:1".into(),
        ..Default::default()
    };
    assert_eq!(cluster.ok(Fact::Join(metad)).node_id, 1);
}

#[test]
fn a_node_is_removed_only_when_nothing_needs_it() {
    let mut cluster = Cluster::serving(3, 3, 2);
    let remove = Fact::RemoveNode(pb::RemoveNode { node: 103 });
    assert_eq!(cluster.refused(remove.clone()), Code::Busy, "it is alive");
    cluster.nodes_changed(&[103], &[]);
    let since = cluster.routing().version;
    cluster.ok(remove.clone());
    cluster.ok(remove);
    let routing = cluster.routing();
    assert!(routing.chains.values().all(|chain| chain.members.len() == 2));
    assert_eq!(routing.nodes[&NodeId(103)].role(), NodeRole::RoleUnknown);
    assert!(delta(&routing, since).nodes.iter().any(|node| node.id == 103));
    let back = pb::JoinRequest { node_id: 103, ..new_node(2) };
    assert_eq!(cluster.refused(Fact::Join(back)), Code::Forbidden);
    cluster.nodes_changed(&[102], &[]);
    cluster.nodes_changed(&[101], &[]);
    assert_eq!(cluster.refused(Fact::RemoveNode(pb::RemoveNode { node: 101 })), Code::Busy);
}

#[test]
fn export_rules_are_set_whole_and_mark_their_version() {
    let mut cluster = Cluster::new();
    cluster.ok(Fact::CreateVolume(pb::CreateVolume { name: "v".into(), group: 1 }));
    let rule = pb::ExportRule { clients: "10.0.0.0/8".into(), ..Default::default() };
    let set = |volume: &str, rules: &[pb::ExportRule]| {
        Fact::SetExports(pb::SetExports { volume: volume.into(), rules: rules.to_vec() })
    };
    let volume = |cluster: &Cluster| cluster.routing().volumes[&ff2_proto::VolumeId(1)].clone();
    assert_eq!(volume(&cluster).ruled_at, 0);
    cluster.ok(set("v", std::slice::from_ref(&rule)));
    let ruled = volume(&cluster);
    assert_eq!(ruled.exports, std::slice::from_ref(&rule));
    assert_eq!(ruled.ruled_at, cluster.routing().version.0);
    cluster.ok(set("v", std::slice::from_ref(&rule)));
    assert_eq!(volume(&cluster), ruled, "the same again voids no grant");
    let refused = |reply: pb::ClusterReply| reply.status.unwrap().code();
    assert_eq!(refused(cluster.apply(set("w", &[]))), Code::NotFound);
    let bad = pb::ExportRule { clients: "everywhere".into(), ..rule };
    assert_eq!(refused(cluster.apply(set("v", &[bad]))), Code::InvalidArgument);
    cluster.ok(set("v", &[]));
    assert!(volume(&cluster).ruled_at > ruled.ruled_at);
}

#[test]
fn users_tokens_and_volumes() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.refused(Fact::IssueToken(pb::IssueToken { uid: 5 })), Code::NotFound);
    let user = pb::User { uid: 5, name: "ann".into(), token_ids: vec![99], ..Default::default() };
    cluster.ok(Fact::PutUser(pb::PutUser { user: Some(user) }));
    assert!(super::user(&cluster.kv, 5).unwrap().token_ids.is_empty(), "tokens are issued only");
    let token = cluster.ok(Fact::IssueToken(pb::IssueToken { uid: 5 })).token_id;
    assert_eq!(users(&cluster.kv)[0].token_ids, [token]);
    cluster.ok(Fact::RevokeToken(pb::RevokeToken { token_id: token }));
    assert_eq!(cluster.routing().revoked_tokens, [token]);
    assert!(users(&cluster.kv)[0].token_ids.is_empty());
    let unknown = Fact::RevokeToken(pb::RevokeToken { token_id: token + 1 });
    assert_eq!(cluster.refused(unknown), Code::NotFound);

    let volume = |name: &str| Fact::CreateVolume(pb::CreateVolume { name: name.into(), group: 1 });
    assert_eq!(cluster.ok(volume("default")).volume_id, 1);
    assert_eq!(cluster.refused(volume("default")), Code::Exists);
    assert_eq!(cluster.refused(volume("a/b")), Code::InvalidArgument);
}

#[test]
fn nothing_happens_before_the_cluster_is_formed_and_nonsense_is_answered() {
    let mut machine = ClusterMachine::new();
    let mut kv = MemKv::new();
    let command = pb::ClusterCommand { now_ms: 1, fact: Some(Fact::Join(new_node(1))), level: 1 };
    for bytes in [command.encode_to_vec(), vec![0xff; 9], Vec::new()] {
        let reply = machine.apply(1, &bytes, &mut kv);
        let reply = pb::ClusterReply::decode(reply).unwrap();
        assert!(ff2_proto::status::check(reply.status).is_err());
    }
    assert!(kv.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Die(Vec<u32>),
    Revive(u32),
    Restart(u32, u64),
    Report(u32),
    Complete(u32),
    Wipe(u32),
    Drain(u32, bool),
    Replace(u64, u32),
    ReviveChain(u64, bool),
    Table,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 101..105u32;
    let step = prop_oneof![
        1 => prop::collection::vec(node(), 1..4).prop_map(Step::Die),
        1 => node().prop_map(Step::Revive),
        1 => (node(), 1..9u64).prop_map(|(node, incarnation)| Step::Restart(node, incarnation)),
        4 => node().prop_map(Step::Report),
        2 => node().prop_map(Step::Complete),
        1 => node().prop_map(Step::Wipe),
        1 => (node(), any::<bool>()).prop_map(|(node, draining)| Step::Drain(node, draining)),
        2 => (1..20u64, node()).prop_map(|(target, node)| Step::Replace(target, node)),
        2 => (1..20u64, any::<bool>()).prop_map(|(target, force)| Step::ReviveChain(target, force)),
        1 => Just(Step::Table),
    ];
    prop::collection::vec(step, 1..60)
}

fn run(cluster: &mut Cluster, step: Step) {
    match step {
        Step::Die(nodes) => cluster.nodes_changed(&nodes, &[]),
        Step::Revive(node) => cluster.nodes_changed(&[], &[node]),
        Step::Restart(node, incarnation) => {
            let request = Cluster::join_request(&cluster.routing(), node);
            cluster.ok(Fact::Join(pb::JoinRequest { incarnation, ..request }));
        }
        Step::Report(node) => cluster.report(node),
        Step::Complete(node) => cluster.report_complete(node),
        Step::Wipe(node) => {
            let routing = cluster.routing();
            for target in routing.targets.values().filter(|target| target.node == node) {
                *cluster.stores.entry(target.id).or_insert(1_000 + target.id) += 1;
            }
        }
        Step::Drain(node, draining) => {
            cluster.ok(Fact::SetDraining(pb::SetDraining { node, draining }));
        }
        Step::Replace(target, node) => {
            let disk_uuid = cluster.routing().nodes[&NodeId(node)].disks[0].uuid.clone();
            // Mostly refused.
            cluster.apply(Fact::ReplaceTarget(pb::ReplaceTarget { target, node, disk_uuid }));
        }
        Step::ReviveChain(target, force) => {
            let routing = cluster.routing();
            let Some(record) = routing.targets.get(&TargetId(target)) else { return };
            let generation = cluster.stores.get(&target).copied().unwrap_or(1_000 + target);
            // Mostly refused.
            cluster.apply(revive(record.chain, target, generation, force));
        }
        Step::Table => {
            let Ok(chains) = place(&placeable_disks(&cluster.routing()), &Leaves::new(), 2, 2)
            else {
                return;
            };
            let fact = pb::CreateTable { replicas: 2, chains, ..Default::default() };
            cluster.ok(Fact::CreateTable(fact));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn deltas_and_restores_rebuild_the_same_routing(steps in steps()) {
        let mut cluster = Cluster::serving(4, 3, 4);
        let mut follower = Routing::default();
        for (number, step) in steps.into_iter().enumerate() {
            let before = cluster.routing();
            run(&mut cluster, step);
            let after = cluster.routing();
            prop_assert_eq!(before.version == after.version, before == after);
            prop_assert!(before == after || after.version.0 == before.version.0 + 1);
            for (id, chain) in &before.chains {
                let next = &after.chains[id];
                prop_assert_eq!(chain.version == next.version, chain == next);
            }
            if number % 3 == 0 {
                follower.apply(delta(&after, follower.version));
                prop_assert_eq!(&follower, after.as_ref());
            }
        }
        let mut restored = ClusterMachine::new();
        restored.restore(&cluster.kv);
        prop_assert_eq!(restored.view(), cluster.routing());
        let all = delta(&cluster.routing(), RoutingVersion(u64::MAX));
        prop_assert_eq!(all.since, 0, "a version of another history gets everything");
    }
}

fn facts() -> Vec<Vec<u8>> {
    let cluster = Cluster::serving(3, 3, 2);
    let placed = place(&placeable_disks(&cluster.routing()), &Leaves::new(), 2, 1).unwrap();
    let routing = cluster.routing();
    let request = Cluster::join_request(&routing, 101);
    let facts = [
        Fact::Join(request),
        Fact::NodesChanged(pb::NodesChanged { dead: vec![101], alive: vec![102] }),
        Fact::TargetsReported(pb::TargetsReported {
            node_id: 102,
            targets: cluster.report_of(102),
            disks: vec![],
        }),
        Fact::CreateTable(pb::CreateTable {
            replicas: 2,
            chains: placed.clone(),
            ..Default::default()
        }),
        Fact::ExtendTable(pb::ExtendTable { table: 1, chains: placed, ..Default::default() }),
        Fact::CreateVolume(pb::CreateVolume { name: "v".into(), ..Default::default() }),
        Fact::IssueToken(pb::IssueToken { uid: 5 }),
        Fact::RevokeToken(pb::RevokeToken { token_id: 1 }),
        Fact::SetDraining(pb::SetDraining { node: 101, draining: true }),
        Fact::RemoveNode(pb::RemoveNode { node: 101 }),
        Fact::ReadmitNode(pb::ReadmitNode { node: 101 }),
    ];
    let command =
        |fact| pb::ClusterCommand { now_ms: 1, fact: Some(fact), level: 1 }.encode_to_vec();
    facts.map(command).to_vec()
}

/// Whatever is in the log, the machine answers and its state stays sound (`apply` checks it), the same as
/// its keys.
#[test]
fn damaged_facts() {
    ff2_fuzz::target!(1_000, facts(), |bytes| {
        // A command of a level to come stops the program, and must.
        if pb::ClusterCommand::decode(bytes).is_ok_and(|command| command.level > ff2_proto::LEVEL) {
            return;
        }
        let Cluster { mut machine, mut kv, .. } = Cluster::serving(3, 3, 2);
        let answer = machine.apply(9, bytes, &mut kv);
        assert!(pb::ClusterReply::decode(answer).is_ok());
        machine.check();
        let mut restored = ClusterMachine::new();
        restored.restore(&kv);
        assert_eq!(restored.view(), machine.view());
    });
}

#[test]
fn a_level_rises_and_never_falls() {
    let mut cluster = Cluster::serving(3, 3, 2);
    assert_eq!(cluster.machine.view().level, 1, "a cluster from before there were levels");
    for (raised, expected) in [(2, 2), (1, 2), (2, 2)] {
        cluster.ok(Fact::RaiseLevel(pb::RaiseLevel { level: raised }));
        let routing = cluster.machine.view();
        assert_eq!(routing.level, expected);
        let told = delta(&routing, RoutingVersion(0));
        let mut learnt = Routing::default();
        assert!(learnt.apply(told) && learnt.level == expected);
    }
    let mut restored = ClusterMachine::new();
    restored.restore(&cluster.kv);
    assert_eq!(restored.view().level, 2);
}

#[test]
#[should_panic(expected = "install a newer release")]
fn a_program_stops_at_a_command_of_a_level_that_it_does_not_know() {
    let mut cluster = Cluster::serving(3, 3, 2);
    let fact = Some(Fact::StartScrub(pb::StartScrub {}));
    let command = pb::ClusterCommand { now_ms: 1, fact, level: ff2_proto::LEVEL + 1 };
    cluster.machine.apply(9, &command.encode_to_vec(), &mut cluster.kv);
}
