//! Cluster objects as JSON and as words: the one place that names the fields which programs read.

use std::collections::BTreeMap;

use ff2_proto::pb;
use serde_json::{Value, json};

use crate::bytes::ByteSize;

/// What the status of the cluster says, indexed by id.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    pub(crate) nodes: BTreeMap<u32, pb::Node>,
    pub(crate) targets: BTreeMap<u64, pb::Target>,
    pub(crate) chains: BTreeMap<u32, pb::Chain>,
    pub(crate) tables: BTreeMap<u32, pb::ChainTable>,
    pub(crate) loads: BTreeMap<u32, pb::NodeLoad>,
    pub(crate) syncs: BTreeMap<u64, pb::TargetSync>,
    pub(crate) stuck: Vec<pb::StuckMove>,
    pub(crate) rebalancing: bool,
}

impl Picture {
    pub(crate) fn of(status: pb::ClusterStatusReply) -> Self {
        let routing = status.routing.unwrap_or_default();
        let targets = routing.targets.into_iter().filter(|target| target.chain != 0);
        Self {
            nodes: routing.nodes.into_iter().map(|n| (n.id, n)).collect(),
            // Those that were given up are on record so that their nodes remove them.
            targets: targets.map(|t| (t.id, t)).collect(),
            chains: routing.chains.into_iter().map(|c| (c.id, c)).collect(),
            tables: routing.tables.into_iter().map(|t| (t.id, t)).collect(),
            loads: status.loads.into_iter().map(|l| (l.node, l)).collect(),
            syncs: status.syncs.into_iter().map(|s| (s.target, s)).collect(),
            stuck: status.stuck,
            rebalancing: routing.rebalancing,
        }
    }

    pub(crate) fn targets_of(&self, node: u32) -> impl Iterator<Item = &pb::Target> {
        self.targets.values().filter(move |target| target.node == node)
    }

    /// Whether a chain has all the replicas that it is to have: one that comes beside another is not counted, and
    /// neither is one that leaves.
    pub(crate) fn is_whole(&self, chain: &pb::Chain) -> bool {
        let targets = chain.members.iter().map(|member| self.targets.get(&member.target));
        let stays = |target: &pb::Target| target.replaces == 0 && !target.leaving;
        let wanted = targets.filter(|target| target.is_none_or(stays)).count();
        let serves = |member: &&pb::ChainMember| member.state() == pb::PublicState::Serving;
        chain.members.iter().filter(serves).count() >= wanted
    }

    /// The disk on which a target lies.
    pub(crate) fn disk_of(&self, target: &pb::Target) -> Option<&pb::Disk> {
        let node = self.nodes.get(&target.node)?;
        node.disks.iter().find(|disk| disk.uuid == target.disk_uuid)
    }
}

pub(crate) fn state(state: pb::PublicState) -> &'static str {
    match state {
        pb::PublicState::PublicUnknown => "unknown",
        pb::PublicState::Serving => "serving",
        pb::PublicState::Lastsrv => "last-serving",
        pb::PublicState::Syncing => "syncing",
        pb::PublicState::Waiting => "waiting",
        pb::PublicState::Offline => "offline",
    }
}

fn local_state(state: pb::LocalState) -> &'static str {
    match state {
        pb::LocalState::LocalUnknown => "unknown",
        pb::LocalState::UpToDate => "up-to-date",
        pb::LocalState::Online => "online",
        pb::LocalState::LocalOffline => "offline",
    }
}

pub(crate) fn role(role: pb::NodeRole) -> &'static str {
    match role {
        pb::NodeRole::RoleUnknown => "unknown",
        pb::NodeRole::Metad => "metad",
        pb::NodeRole::Storaged => "storaged",
        pb::NodeRole::Client => "client",
    }
}

pub(crate) fn life(node: &pb::Node) -> &'static str {
    match (node.alive, node.draining) {
        (true, false) => "alive",
        (true, true) => "draining",
        (false, _) => "dead",
    }
}

pub(crate) fn node(node: &pb::Node, load: Option<&pb::NodeLoad>) -> Value {
    json!({
        "id": node.id, "role": role(node.role()), "state": life(node), "alive": node.alive,
        "draining": node.draining, "address": node.address, "admin_address": node.admin_address,
        "hostname": node.hostname, "incarnation": node.incarnation,
        "disks": node.disks.iter().map(disk).collect::<Vec<_>>(),
        "load": load.map(|load| json!({
            "read_bytes_per_s": load.read_bytes_per_s, "write_bytes_per_s": load.write_bytes_per_s,
            "read_ops_per_s": load.read_ops_per_s, "write_ops_per_s": load.write_ops_per_s,
            "heartbeat_age_ms": load.heartbeat_age_ms,
        })),
    })
}

pub(crate) fn disk(disk: &pb::Disk) -> Value {
    json!({
        "index": disk.index, "uuid": hex(&disk.uuid), "path": disk.path, "failed": disk.failed,
        "capacity_bytes": disk.capacity_bytes, "used_bytes": disk.used_bytes,
    })
}

pub(crate) fn target(picture: &Picture, target: &pb::Target) -> Value {
    let sync = picture.syncs.get(&target.id).map(|sync| {
        json!({
            "done_chunks": sync.done_chunks, "total_chunks": sync.total_chunks,
            "waiting_for": sync.waiting_for,
        })
    });
    json!({
        "id": target.id, "chain": target.chain, "node": target.node,
        "state": state(target.public_state()), "local_state": local_state(target.local_state()),
        "disk": picture.disk_of(target).map(|disk| disk.path.clone()),
        "disk_uuid": hex(&target.disk_uuid), "generation": target.generation,
        "used_bytes": target.used_bytes, "sync": sync,
        "replaces": target.replaces, "leaving": target.leaving, "retiring": target.retiring != 0,
    })
}

pub(crate) fn chain(chain: &pb::Chain) -> Value {
    let members: Vec<Value> = chain
        .members
        .iter()
        .map(|member| {
            json!({ "target": member.target, "node": member.node, "state": state(member.state()) })
        })
        .collect();
    json!({ "id": chain.id, "version": chain.version, "members": members })
}

pub(crate) fn chain_table(table: &pb::ChainTable) -> Value {
    json!({
        "id": table.id, "version": table.version, "replicas": table.replicas,
        "description": table.description, "chains": table.chains, "sizes": table.sizes,
    })
}

pub(crate) fn group(group: &pb::GroupStatus) -> Value {
    let members: Vec<Value> = group
        .members
        .iter()
        .map(|member| {
            json!({
                "node": member.node, "raft_id": member.raft_id, "address": member.address,
                "match_index": member.match_index, "voter": member.voter,
                "recently_active": member.recently_active,
            })
        })
        .collect();
    json!({
        "group": group.group, "leader_node": group.leader_node,
        "leader_address": group.leader_address, "term": group.term,
        "commit_index": group.commit_index, "applied_index": group.applied_index,
        "members": members,
    })
}

/// `12 (2), 15 (3), 13 (1, syncing)`: targets with their nodes, head first.
pub(crate) fn members(chain: &pb::Chain) -> String {
    let show = |member: &pb::ChainMember| match member.state() {
        pb::PublicState::Serving => format!("{} (node {})", member.target, member.node),
        other => format!("{} (node {}, {})", member.target, member.node, state(other)),
    };
    chain.members.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// `3 GiB of 8 GiB`, or what is wrong.
pub(crate) fn fill(disk: &pb::Disk) -> String {
    match disk.failed {
        true => "failed".to_owned(),
        false => format!("{} of {}", ByteSize(disk.used_bytes), ByteSize(disk.capacity_bytes)),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two storage nodes, one of them dead, and a chain over both.
    pub(crate) fn status() -> pb::ClusterStatusReply {
        let disk = pb::Disk {
            index: 0,
            uuid: vec![1; 16].into(),
            path: "/d".into(),
            capacity_bytes: 8 << 30,
            used_bytes: 3 << 30,
            failed: false,
        };
        let node = |id, alive| pb::Node {
            id,
            role: pb::NodeRole::Storaged.into(),
            address: format!("127.0.0.1:{id}"),
            disks: vec![disk.clone()],
            alive,
            ..Default::default()
        };
        let states = [pb::PublicState::Serving, pb::PublicState::Offline];
        let member = |(i, state): (usize, &pb::PublicState)| pb::ChainMember {
            target: 11 + i as u64,
            state: (*state).into(),
            node: 1 + i as u32,
        };
        let members: Vec<_> = states.iter().enumerate().map(member).collect();
        let targets = members.iter().map(|member| pb::Target {
            id: member.target,
            chain: 1,
            node: member.node,
            disk_uuid: vec![1; 16].into(),
            public_state: member.state,
            ..Default::default()
        });
        let routing = pb::RoutingDelta {
            version: 5,
            nodes: vec![node(1, true), node(2, false)],
            targets: targets.collect(),
            chains: vec![pb::Chain {
                id: 1,
                version: 4,
                members,
                changed_at: 5,
                ..Default::default()
            }],
            tables: vec![pb::ChainTable {
                id: 1,
                chains: vec![1],
                replicas: 2,
                ..Default::default()
            }],
            ..Default::default()
        };
        pb::ClusterStatusReply {
            cluster_id: "c".into(),
            healthy: false,
            problems: vec!["node 2 is dead: start it".into()],
            routing: Some(routing),
            groups: vec![pb::GroupStatus {
                group: 0,
                leader_node: 1,
                term: 2,
                ..Default::default()
            }],
            loads: vec![pb::NodeLoad { node: 1, heartbeat_age_ms: 12, ..Default::default() }],
            ..Default::default()
        }
    }

    #[test]
    fn objects_are_shown_with_their_relations() {
        let picture = Picture::of(status());
        let shown = target(&picture, &picture.targets[&12]);
        assert_eq!((&shown["state"], &shown["disk"]), (&json!("offline"), &json!("/d")));
        assert_eq!(members(&picture.chains[&1]), "11 (node 1), 12 (node 2, offline)");
        assert_eq!(picture.targets_of(2).count(), 1);
        assert_eq!(node(&picture.nodes[&1], picture.loads.get(&1))["load"]["heartbeat_age_ms"], 12);
        assert_eq!(fill(&picture.nodes[&1].disks[0]), "3 GiB of 8 GiB");
        assert_eq!(chain(&picture.chains[&1])["members"][1]["state"], "offline");
        assert_eq!(hex(&[0, 255]), "00ff");
    }
}
