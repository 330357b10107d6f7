//! Nodes and their targets: join, death and revival, reports, draining, removal.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::{ChainId, NodeId, Status, TargetId, limits::ADDRESSES_MAX, pb, status::Code};
use pb::{LocalState, NodeRole, PublicState};

use super::{
    Answer, check_text, invalid,
    moves::{abandon_moves, rejudge, take_out},
    not_found,
};
use crate::cluster::{
    chain::Observation,
    edit::Edit,
    identity::known_as,
    judge::{judge, local_state, observe_report},
    limits, recall,
};

/// A daemon joins or comes back. Another incarnation than the one on record means that the process
/// was gone, so it is a death too, unless that was judged already.
pub(super) fn join(fact: pb::JoinRequest, edit: &mut Edit<'_>) -> Answer {
    check_join(&fact, edit)?;
    let addresses = addresses(&fact, edit)?;
    let id = match known_as(edit.routing(), &fact) {
        Some(known) => known.0,
        None if fact.node_id == 0 => allocate(edit)?,
        None => fact.node_id,
    };
    if let Some(known) = edit.routing().nodes.get(&NodeId(id)).cloned()
        && known.alive
        && known.incarnation != fact.incarnation
    {
        kill(&BTreeSet::from([NodeId(id)]), edit);
    }
    let draining = edit.routing().nodes.get(&NodeId(id)).is_some_and(|known| known.draining);
    edit.put_node(pb::Node {
        id,
        role: fact.role,
        address: fact.address,
        admin_address: fact.admin_address,
        hostname: fact.hostname,
        disks: fact.disks,
        incarnation: fact.incarnation,
        alive: true,
        draining,
        changed_at: 0,
        addresses,
    });
    judge_node(NodeId(id), edit);
    Ok(pb::ClusterReply { node_id: id, ..Default::default() })
}

fn check_join(fact: &pb::JoinRequest, edit: &Edit<'_>) -> Result<(), Status> {
    let routing = edit.routing();
    if !fact.cluster_id.is_empty() && fact.cluster_id != routing.cluster_id {
        let detail = format!("this is cluster {}, not {}", routing.cluster_id, fact.cluster_id);
        return Err(Status::new(Code::WrongCluster, detail));
    }
    check_text("address", &fact.address)?;
    check_text("admin address", &fact.admin_address)?;
    check_text("hostname", &fact.hostname)?;
    if fact.address.is_empty() || fact.disks.len() > limits::DISKS_PER_NODE_MAX {
        return Err(invalid("a node has an address and at most 64 disks"));
    }
    let uuids: BTreeSet<_> = fact.disks.iter().map(|disk| &disk.uuid).collect();
    if uuids.len() != fact.disks.len() {
        return Err(invalid("two disks of the node carry the same uuid: one is a copy"));
    }
    let known = routing.nodes.get(&NodeId(fact.node_id));
    if known.is_some_and(|known| known.role() != fact.role()) {
        let detail = format!("node {} has another role, or was removed", fact.node_id);
        return Err(Status::new(Code::Forbidden, detail));
    }
    match fact.role() {
        NodeRole::Metad if (1..limits::STORAGED_ID_FIRST).contains(&fact.node_id) => Ok(()),
        NodeRole::Metad => Err(invalid("a metad's node id is from 1 to 100")),
        NodeRole::Storaged if fact.node_id == 0 || known.is_some() => Ok(()),
        // It joined after the backup was made that this cluster was restored from.
        NodeRole::Storaged if recall::may_be_node(routing, fact.node_id) => Ok(()),
        NodeRole::Storaged => Err(not_found(format!(
            "node {} is not known to this cluster: format it to join as a new one",
            fact.node_id
        ))),
        NodeRole::Client | NodeRole::RoleUnknown => Err(invalid("only daemons join")),
    }
}

/// What is on record of the node's addresses in zones. Below their level there may be metads that do not know of them,
/// and all must answer and store the same.
fn addresses(fact: &pb::JoinRequest, edit: &Edit<'_>) -> Result<Vec<pb::ZoneAddress>, Status> {
    if edit.routing().level < limits::ADDRESSES_LEVEL {
        return Ok(Vec::new());
    }
    if fact.addresses.len() > ADDRESSES_MAX {
        return Err(invalid(format!("a node has at most {ADDRESSES_MAX} addresses")));
    }
    for told in &fact.addresses {
        check_text("zone", &told.zone)?;
        check_text("address in a zone", &told.address)?;
        if told.zone.is_empty() || told.address.is_empty() {
            return Err(invalid("an address in a zone has both: a zone and an address"));
        }
    }
    Ok(fact.addresses.clone())
}

fn allocate(edit: &mut Edit<'_>) -> Result<u32, Status> {
    if edit.routing().nodes.len() >= limits::NODES_MAX {
        return Err(Status::new(Code::QuotaExceeded, "the cluster is full: remove dead nodes"));
    }
    let id = edit.record.next_node;
    edit.record.next_node += 1;
    Ok(id)
}

/// Deaths and revivals of one moment, judged together.
pub(super) fn changed(fact: &pb::NodesChanged, edit: &mut Edit<'_>) -> Answer {
    let dead = fact.dead.iter().copied().map(NodeId).collect();
    kill(&dead, edit);
    for id in fact.alive.iter().copied().map(NodeId) {
        let Some(node) = edit.routing().nodes.get(&id).filter(|node| !node.alive) else { continue };
        if node.role() == NodeRole::RoleUnknown {
            continue;
        }
        edit.put_node(pb::Node { alive: true, ..node.clone() });
        judge_node(id, edit);
    }
    Ok(pb::ClusterReply::default())
}

/// Changes of one node's targets and disks. A report of a node that is dead on record is dropped:
/// its revival is a fact of its own, and fresh reports follow it.
pub(super) fn targets_reported(fact: &pb::TargetsReported, edit: &mut Edit<'_>) -> Answer {
    let id = NodeId(fact.node_id);
    let Some(node) = edit.routing().nodes.get(&id).filter(|node| node.alive).cloned() else {
        return Ok(pb::ClusterReply::default());
    };
    let mut chains = BTreeSet::new();
    if !fact.disks.is_empty() && fact.disks != node.disks {
        edit.put_node(pb::Node { disks: fact.disks.clone(), ..node });
        chains.extend(chains_of(id, edit));
    }
    let mut fresh = BTreeMap::new();
    for report in &fact.targets {
        if !recall::take_in(edit, id, report) {
            continue;
        }
        let routing = edit.routing();
        let Some(target) = routing.targets.get(&TargetId(report.target)) else { continue };
        let Some(seen) = observe_report(routing, report) else { continue };
        if target.node != id.0 {
            continue;
        }
        let mut next = target.clone();
        next.set_local_state(local_state(seen));
        if next.generation == 0 && seen != Observation::Gone {
            next.generation = report.generation;
        }
        next.retired |= target.retiring != 0 && report.retired == target.retiring;
        fresh.insert(TargetId(report.target), (seen, report.generation));
        chains.insert(ChainId(target.chain));
        if next != *target {
            edit.put_target(next);
        }
    }
    judge(edit, &chains, &fresh);
    Ok(pb::ClusterReply::default())
}

/// A draining node gets nothing new, and its leader moves what it has to others. When that is taken back,
/// what has not come far enough to serve elsewhere stays.
pub(super) fn set_draining(fact: &pb::SetDraining, edit: &mut Edit<'_>) -> Answer {
    let Some(node) = edit.routing().nodes.get(&NodeId(fact.node)).cloned() else {
        return Err(not_found(format!("there is no node {}", fact.node)));
    };
    if node.draining != fact.draining {
        edit.put_node(pb::Node { draining: fact.draining, ..node });
        if !fact.draining {
            abandon_moves(|source| source.node == fact.node, edit);
        }
    }
    Ok(pb::ClusterReply::default())
}

/// Forgets a dead node. Its record stays without a role, so that the id is never used again and
/// every copy of the routing learns of it.
pub(super) fn remove(fact: &pb::RemoveNode, edit: &mut Edit<'_>) -> Answer {
    let id = NodeId(fact.node);
    let Some(node) = edit.routing().nodes.get(&id).cloned() else {
        return Err(not_found(format!("there is no node {id}")));
    };
    if node.role() == NodeRole::RoleUnknown {
        return Ok(pb::ClusterReply::default());
    }
    if node.alive && node.role() == NodeRole::Storaged {
        return Err(Status::new(Code::Busy, format!("node {id} is alive: stop it first")));
    }
    let targets = targets_of(id, edit);
    let needed = |target: &&pb::Target| {
        matches!(target.public_state(), PublicState::Serving | PublicState::Lastsrv)
    };
    if let Some(target) = targets.iter().find(needed) {
        let detail = format!(
            "target {} of chain {} holds data that no other member has: bring node {id} back",
            target.id, target.chain
        );
        return Err(Status::new(Code::Busy, detail));
    }
    for target in targets {
        let chain = ChainId(target.chain);
        take_out(target, edit);
        rejudge(chain, edit);
    }
    edit.put_node(pb::Node {
        id: node.id,
        hostname: node.hostname,
        incarnation: node.incarnation,
        ..Default::default()
    });
    Ok(pb::ClusterReply::default())
}

/// Takes a metad's removal back: its id may join again, as a new replica. A storage node's id is not
/// used again, because its disks know it.
pub(super) fn readmit(fact: &pb::ReadmitNode, edit: &mut Edit<'_>) -> Answer {
    let removed = edit.routing().nodes.get(&NodeId(fact.node)).cloned();
    let Some(node) = removed.filter(|node| node.role() == NodeRole::RoleUnknown) else {
        return Err(not_found(format!("no node {} was removed", fact.node)));
    };
    if fact.node >= limits::STORAGED_ID_FIRST {
        return Err(invalid("a removed storage node comes back as a new one: format it"));
    }
    edit.put_node(pb::Node { role: NodeRole::Metad.into(), ..node });
    Ok(pb::ClusterReply::default())
}

fn kill(dead: &BTreeSet<NodeId>, edit: &mut Edit<'_>) {
    let mut chains = BTreeSet::new();
    for &id in dead {
        let Some(node) = edit.routing().nodes.get(&id).filter(|node| node.alive) else { continue };
        edit.put_node(pb::Node { alive: false, ..node.clone() });
        for mut target in targets_of(id, edit) {
            chains.insert(ChainId(target.chain));
            if target.local_state() != LocalState::LocalOffline {
                target.set_local_state(LocalState::LocalOffline);
                edit.put_target(target);
            }
        }
    }
    judge(edit, &chains, &BTreeMap::new());
}

/// After a change of what the node is: whether it lives, and which disks it has.
fn judge_node(id: NodeId, edit: &mut Edit<'_>) {
    let chains = chains_of(id, edit);
    judge(edit, &chains, &BTreeMap::new());
}

fn targets_of(id: NodeId, edit: &Edit<'_>) -> Vec<pb::Target> {
    edit.routing().targets.values().filter(|target| target.node == id.0).cloned().collect()
}

fn chains_of(id: NodeId, edit: &Edit<'_>) -> BTreeSet<ChainId> {
    targets_of(id, edit).iter().map(|target| ChainId(target.chain)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::Cluster;
    use pb::cluster_command::Fact;

    #[test]
    fn addresses_in_zones_are_on_record_from_their_level_on() {
        let mut cluster = Cluster::serving(3, 3, 2);
        let told = vec![pb::ZoneAddress { zone: "two".into(), address: "h:2".into() }];
        let join = |cluster: &Cluster, addresses| {
            Fact::Join(pb::JoinRequest {
                addresses,
                ..Cluster::join_request(&cluster.routing(), 101)
            })
        };
        let recorded = |cluster: &Cluster| cluster.routing().nodes[&NodeId(101)].addresses.clone();
        cluster.ok(join(&cluster, told.clone()));
        assert_eq!(recorded(&cluster), [], "a metad of the last release would not store them");
        cluster.ok(Fact::RaiseLevel(pb::RaiseLevel { level: 3 }));
        cluster.ok(join(&cluster, told.clone()));
        assert_eq!(recorded(&cluster), told);
        cluster.ok(join(&cluster, Vec::new()));
        assert_eq!(recorded(&cluster), [], "the last start counts");
        for wrong in [vec![pb::ZoneAddress::default()], vec![told[0].clone(); 9]] {
            let fact = join(&cluster, wrong);
            assert_eq!(cluster.refused(fact), Code::InvalidArgument);
        }
    }
}
