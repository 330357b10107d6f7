//! Members that join a chain beside those it has, and members that leave it: see [`crate::cluster::moves`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ff2_proto::{
    ChainId, NodeId, Status, TableId, TargetId,
    marks::{Mark, reached},
    pb,
    routing::ChainExt,
};
use pb::{LocalState, NodeRole, PublicState};

use super::{Answer, invalid, not_found, targets::give_up};
use crate::cluster::{
    chain::Observation,
    edit::Edit,
    judge::judge,
    leave::{gives_way, may_be_taken_out, newcomer_for},
    limits,
};

/// A newcomer beside the member that it is to replace.
pub(super) fn move_target(fact: pb::MoveTarget, edit: &mut Edit<'_>) -> Answer {
    let old = member(fact.target, edit)?;
    if old.leaving || old.replaces != 0 {
        return Err(invalid(format!("target {} is on its way already", old.id)));
    }
    let place = pb::PlacedTarget { node: fact.node, disk_uuid: fact.disk_uuid };
    add(ChainId(old.chain), place, old.id, edit)
}

/// One more replica for a chain.
pub(super) fn add_target(fact: pb::AddTarget, edit: &mut Edit<'_>) -> Answer {
    let place = pb::PlacedTarget { node: fact.node, disk_uuid: fact.disk_uuid };
    add(ChainId(fact.chain), place, 0, edit)
}

/// The new member begins offline and without a store; when its node has made one, it waits, syncs and serves
/// as any that comes back.
fn add(id: ChainId, place: pb::PlacedTarget, replaces: u64, edit: &mut Edit<'_>) -> Answer {
    let Some(mut chain) = edit.routing().chains.get(&id).cloned() else {
        return Err(not_found(format!("there is no chain {id}")));
    };
    if chain.serving().next().is_none() {
        return Err(invalid(format!("chain {id} serves nothing: there is nothing to copy from")));
    }
    if chain.members.len() > limits::REPLICAS_MAX as usize {
        return Err(invalid(format!("chain {id} has as many members as a chain may have")));
    }
    let targets =
        || chain.members.iter().filter_map(|m| edit.routing().targets.get(&m.target.into()));
    if targets().any(|target| target.replaces != 0) {
        return Err(invalid(format!("chain {id} has a newcomer already: one at a time")));
    }
    if chain.members.iter().any(|member| member.node == place.node) {
        let detail = format!("node {} holds a member of chain {id}", place.node);
        return Err(invalid(detail));
    }
    check_disk(place.node, &place.disk_uuid, edit)?;
    let target = edit.record.next_target;
    edit.record.next_target += 1;
    let state = PublicState::Offline.into();
    chain.members.push(pb::ChainMember { target, state, node: place.node });
    chain.version += 1;
    edit.put_target(pb::Target {
        id: target,
        chain: chain.id,
        node: place.node,
        disk_uuid: place.disk_uuid,
        public_state: state,
        local_state: LocalState::LocalOffline.into(),
        replaces,
        ..Default::default()
    });
    edit.put_chain(chain);
    rejudge(id, edit);
    Ok(pb::ClusterReply { target, ..Default::default() })
}

/// Whether a disk may get a target.
pub(super) fn check_disk(node: u32, uuid: &Bytes, edit: &Edit<'_>) -> Result<(), Status> {
    let Some(node) =
        edit.routing().nodes.get(&NodeId(node)).filter(|n| n.role() == NodeRole::Storaged)
    else {
        return Err(not_found(format!("there is no storage node {node}")));
    };
    if node.draining {
        return Err(invalid(format!("node {} is draining and gets nothing new", node.id)));
    }
    match node.disks.iter().find(|disk| disk.uuid == *uuid) {
        Some(disk) if disk.failed => {
            Err(invalid(format!("disk {} of node {} has failed", disk.index, node.id)))
        }
        Some(_) => Ok(()),
        None => Err(not_found(format!("node {} has no such disk", node.id))),
    }
}

/// A newcomer that does not serve yet is nobody's loss.
pub(super) fn abandon(fact: &pb::AbandonTarget, edit: &mut Edit<'_>) -> Answer {
    let newcomer = member(fact.target, edit)?;
    if newcomer.replaces == 0 {
        return Err(invalid(format!("target {} replaces no other", newcomer.id)));
    }
    if is_needed(newcomer.public_state()) {
        return Err(invalid(format!("target {} serves already", newcomer.id)));
    }
    drop_newcomer(newcomer, edit);
    Ok(pb::ClusterReply::default())
}

/// Ends the moves whose leaving member `is_source` names, as far as their newcomers do not serve yet.
pub(super) fn abandon_moves(is_source: impl Fn(&pb::Target) -> bool, edit: &mut Edit<'_>) {
    let routing = edit.routing();
    let newcomers = routing.targets.values().filter(|target| {
        let source = routing.targets.get(&TargetId(target.replaces));
        target.chain != 0 && !is_needed(target.public_state()) && source.is_some_and(&is_source)
    });
    for newcomer in newcomers.cloned().collect::<Vec<_>>() {
        drop_newcomer(newcomer, edit);
    }
}

fn drop_newcomer(newcomer: pb::Target, edit: &mut Edit<'_>) {
    reached(Mark::MoveAbandoned);
    let chain = ChainId(newcomer.chain);
    take_out(newcomer, edit);
    rejudge(chain, edit);
}

/// A member that is to go, so that its chain has fewer replicas; one at a time.
pub(super) fn retire(fact: &pb::RetireTarget, edit: &mut Edit<'_>) -> Answer {
    let target = member(fact.target, edit)?;
    if target.leaving != fact.stay {
        return Ok(pb::ClusterReply::default());
    }
    let id = ChainId(target.chain);
    if !fact.stay {
        let routing = edit.routing();
        let chain = &routing.chains[&id];
        let others = || chain.members.iter().filter(|member| member.target != target.id);
        let on_the_way = |member: &pb::ChainMember| {
            let other = routing.targets.get(&TargetId(member.target));
            other.is_some_and(|other| other.leaving || other.replaces != 0)
        };
        if target.replaces != 0 || others().any(on_the_way) {
            return Err(invalid(format!("a member of chain {id} is on its way: one at a time")));
        }
        if others().next().is_none() {
            return Err(invalid(format!("target {} is all that chain {id} has", target.id)));
        }
    }
    edit.put_target(pb::Target { leaving: !fact.stay, ..target });
    rejudge(id, edit);
    Ok(pb::ClusterReply::default())
}

/// The end of a leave. What the leader heard counts for this very version of the chain.
pub(super) fn take_out_heard(fact: &pb::TakeOutTarget, edit: &mut Edit<'_>) -> Answer {
    let target = member(fact.target, edit)?;
    let id = ChainId(target.chain);
    let chain = &edit.routing().chains[&id];
    let is_present = chain.version == fact.chain_version;
    if is_present && target.retired && gives_way(edit.routing(), chain, &target) {
        reached(Mark::CutGivesWay);
        let gone = BTreeMap::from([(TargetId(target.id), (Observation::Gone, target.generation))]);
        judge(edit, &BTreeSet::from([id]), &gone);
        return Ok(pb::ClusterReply::default());
    }
    if !is_present || !may_be_taken_out(edit.routing(), chain, &target) {
        return Err(invalid(format!("chain {id} cannot do without target {} now", target.id)));
    }
    let newcomer = newcomer_for(edit.routing(), chain, target.id).is_some();
    reached(if newcomer { Mark::MoveCompleted } else { Mark::ReplicaTakenOut });
    take_out(target, edit);
    rejudge(id, edit);
    Ok(pb::ClusterReply::default())
}

/// Removes a member from its chain and gives it up.
pub(super) fn take_out(target: pb::Target, edit: &mut Edit<'_>) {
    if let Some(mut chain) = edit.routing().chains.get(&ChainId(target.chain)).cloned() {
        chain.members.retain(|member| member.target != target.id);
        chain.version += 1;
        edit.put_chain(chain);
    }
    give_up(target, edit);
}

pub(super) fn set_replicas(fact: &pb::SetReplicas, edit: &mut Edit<'_>) -> Answer {
    if !(1..=limits::REPLICAS_MAX).contains(&fact.replicas) {
        return Err(invalid(format!("a chain has 1 to {} replicas", limits::REPLICAS_MAX)));
    }
    let Some(table) = edit.routing().tables.get(&TableId(fact.table)).cloned() else {
        return Err(not_found(format!("there is no chain table {}", fact.table)));
    };
    if table.replicas != fact.replicas {
        edit.put_table(pb::ChainTable { replicas: fact.replicas, ..table });
    }
    Ok(pb::ClusterReply::default())
}

pub(super) fn set_rebalancing(fact: &pb::SetRebalancing, edit: &mut Edit<'_>) -> Answer {
    if edit.routing().rebalancing == fact.on {
        return Ok(pb::ClusterReply::default());
    }
    edit.set_rebalancing(fact.on);
    if !fact.on {
        // What is moved because its node drains goes on.
        let nodes = edit.routing().nodes.values().filter(|node| node.draining);
        let draining: BTreeSet<u32> = nodes.map(|node| node.id).collect();
        abandon_moves(|source| !draining.contains(&source.node), edit);
    }
    Ok(pb::ClusterReply::default())
}

fn member(id: u64, edit: &Edit<'_>) -> Result<pb::Target, Status> {
    let target = edit.routing().targets.get(&TargetId(id));
    let target = target.filter(|target| edit.routing().chains.contains_key(&ChainId(target.chain)));
    target.cloned().ok_or_else(|| not_found(format!("there is no target {id} (any more)")))
}

fn is_needed(state: PublicState) -> bool {
    matches!(state, PublicState::Serving | PublicState::Lastsrv)
}

pub(super) fn rejudge(chain: ChainId, edit: &mut Edit<'_>) {
    judge(edit, &BTreeSet::from([chain]), &BTreeMap::new());
}
