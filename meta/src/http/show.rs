//! Messages as JSON for people and the page.

use ff2_meta_core::cluster::delta;
use ff2_proto::{Routing, RoutingVersion, pb};
use serde_json::{Value, json};

pub(super) fn show_cluster(status: &pb::ClusterStatusReply) -> Value {
    let routing = status.routing.clone().unwrap_or_default();
    let nodes: Vec<Value> = routing
        .nodes
        .iter()
        .filter(|node| node.role() != pb::NodeRole::RoleUnknown)
        .map(|node| show_node(node, status.loads.iter().find(|load| load.node == node.id)))
        .collect();
    json!({
        "cluster_id": status.cluster_id,
        "healthy": status.healthy,
        "problems": status.problems,
        "routing_version": routing.version,
        "nodes": nodes,
        "chains": routing.chains.iter().map(|c| show_chain(c, &status.syncs)).collect::<Vec<_>>(),
        "tables": routing.tables.iter().map(show_table).collect::<Vec<_>>(),
        "volumes": routing.volumes.iter().map(show_volume).collect::<Vec<_>>(),
        "groups": status.groups.iter().map(show_group).collect::<Vec<_>>(),
        "sessions": status.sessions,
        "space": status.statfs.as_ref().map(|space| json!({
            "capacity_bytes": space.capacity_bytes,
            "available_bytes": space.available_bytes,
            "inodes_used": space.inodes_used,
            "bytes_used": space.bytes_used,
        })),
    })
}

/// The routing as this replica knows it.
pub(crate) fn show_routing(routing: &Routing) -> Value {
    let all = delta(routing, RoutingVersion(0));
    json!({
        "version": all.version,
        "nodes": all.nodes.iter().map(|node| show_node(node, None)).collect::<Vec<_>>(),
        "targets": all.targets.iter().map(show_target).collect::<Vec<_>>(),
        "chains": all.chains.iter().map(|chain| show_chain(chain, &[])).collect::<Vec<_>>(),
        "tables": all.tables.iter().map(show_table).collect::<Vec<_>>(),
        "volumes": all.volumes.iter().map(show_volume).collect::<Vec<_>>(),
        "revoked_tokens": all.revoked_tokens,
    })
}

pub(crate) fn show_group(group: &pb::GroupStatus) -> Value {
    let members = group.members.iter().map(|member| {
        json!({
            "node": member.node,
            "raft_id": member.raft_id,
            "address": member.address,
            "match_index": member.match_index,
            "voter": member.voter,
            "recently_active": member.recently_active,
        })
    });
    json!({
        "group": group.group,
        "leader_node": group.leader_node,
        "leader_address": group.leader_address,
        "term": group.term,
        "commit_index": group.commit_index,
        "applied_index": group.applied_index,
        "members": members.collect::<Vec<_>>(),
    })
}

fn show_node(node: &pb::Node, load: Option<&pb::NodeLoad>) -> Value {
    let disks = node.disks.iter().map(|disk| {
        json!({
            "index": disk.index,
            "uuid": hex(&disk.uuid),
            "path": disk.path,
            "capacity_bytes": disk.capacity_bytes,
            "used_bytes": disk.used_bytes,
            "failed": disk.failed,
        })
    });
    json!({
        "id": node.id,
        "role": node.role().as_str_name(),
        "address": node.address,
        "addresses": node.addresses.iter().map(|at| json!({ "zone": at.zone, "address": at.address }))
            .collect::<Vec<_>>(),
        "admin_address": node.admin_address,
        "hostname": node.hostname,
        "alive": node.alive,
        "draining": node.draining,
        "incarnation": node.incarnation.to_string(),
        "disks": disks.collect::<Vec<_>>(),
        "load": load.map(|load| json!({
            "read_bytes_per_s": load.read_bytes_per_s,
            "write_bytes_per_s": load.write_bytes_per_s,
            "read_ops_per_s": load.read_ops_per_s,
            "write_ops_per_s": load.write_ops_per_s,
            "heartbeat_age_ms": load.heartbeat_age_ms,
        })),
    })
}

fn show_chain(chain: &pb::Chain, syncs: &[pb::TargetSync]) -> Value {
    let members = chain.members.iter().map(|member| {
        let sync = syncs.iter().find(|sync| sync.target == member.target);
        json!({
            "target": member.target,
            "node": member.node,
            "state": member.state().as_str_name(),
            "sync": sync.map(|sync| json!({
                "done": sync.done_chunks,
                "total": sync.total_chunks,
                "waiting_for": sync.waiting_for,
            })),
        })
    });
    json!({ "id": chain.id, "version": chain.version, "members": members.collect::<Vec<_>>() })
}

fn show_target(target: &pb::Target) -> Value {
    json!({
        "id": target.id,
        "chain": target.chain,
        "node": target.node,
        "disk": hex(&target.disk_uuid),
        "public_state": target.public_state().as_str_name(),
        "local_state": target.local_state().as_str_name(),
        "generation": target.generation.to_string(),
        "changed_at": target.changed_at,
    })
}

fn show_table(table: &pb::ChainTable) -> Value {
    json!({
        "id": table.id,
        "version": table.version,
        "replicas": table.replicas,
        "description": table.description,
        "chains": table.chains,
    })
}

fn show_volume(volume: &pb::Volume) -> Value {
    json!({ "id": volume.id, "name": volume.name, "group": volume.group })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_page_reads_is_there() {
        let disk = pb::Disk { uuid: vec![0xab, 1].into(), capacity_bytes: 9, ..Default::default() };
        let node = pb::Node {
            id: 101,
            role: pb::NodeRole::Storaged.into(),
            disks: vec![disk],
            ..Default::default()
        };
        let member = pb::ChainMember { target: 7, state: 3, node: 101 };
        let chain = pb::Chain {
            id: 1,
            version: 4,
            members: vec![member],
            changed_at: 2,
            ..Default::default()
        };
        let shown = show_cluster(&pb::ClusterStatusReply {
            cluster_id: "c".into(),
            routing: Some(pb::RoutingDelta {
                nodes: vec![node],
                chains: vec![chain],
                ..Default::default()
            }),
            loads: vec![pb::NodeLoad { node: 101, read_bytes_per_s: 5, ..Default::default() }],
            syncs: vec![pb::TargetSync { target: 7, done_chunks: 1, ..Default::default() }],
            ..Default::default()
        });
        assert_eq!(shown["nodes"][0]["disks"][0]["uuid"], "ab01");
        assert_eq!(shown["nodes"][0]["load"]["read_bytes_per_s"], 5);
        assert_eq!(shown["chains"][0]["members"][0]["state"], "SYNCING");
        assert_eq!(shown["chains"][0]["members"][0]["sync"]["done"], 1);
        for key in ["problems", "groups", "tables", "volumes", "sessions", "healthy"] {
            assert!(!shown[key].is_null(), "{key}");
        }
    }
}
