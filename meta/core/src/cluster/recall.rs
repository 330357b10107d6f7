//! Restored chains: the stores tell who served last.
//!
//! A backup says who served when it was made. Members that served then may have been left behind since, and would
//! take back what was acknowledged after they left. So after a restore ([`super::restore()`]) no chain serves until its
//! members' stores told what they remember: [`pb::TargetPast`], which is on their disks before they act upon a chain
//! version. Those of the highest version that anybody served under have everything that was acknowledged, provided
//! that nobody came after them. Then they are last-serving, all others are copied anew, and all goes on as ever.
//!
//! Why nobody came after version `s`, if that is the highest one told: whoever serves under a later one was a member
//! at `s`, or was copied by somebody who served under a later one; so there is a first to serve under a later one, and
//! it was a member at `s`. All members at `s` are heard (the records of `s` name them), none of them took part in a
//! later version, and those that might have served have the stores that they had. If any of this is not known, the
//! chain waits: for the member, or for an administrator who says which one to go on from.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::{ChainId, NodeId, Routing, TargetId, pb};
use pb::{LocalState, PublicState};

use super::{chain::rank, edit::Edit, facts::give_up, limits};

/// Whether a storage node of this number may have joined after the backup.
pub(super) fn may_be_node(routing: &Routing, node: u32) -> bool {
    routing
        .restored
        .is_some_and(|restored| (restored.nodes_from..restored.nodes_below).contains(&node))
}

/// What a report says of the past that counts: of a target that goes by no version from before the restore any more.
fn told<'a>(routing: &Routing, report: &'a pb::TargetReport) -> Option<&'a pb::TargetPast> {
    let restored = routing.restored.as_ref()?;
    report.past.as_ref().filter(|past| past.as_of >= restored.routing_version)
}

fn restored_chain(routing: &Routing, id: u32) -> Option<&pb::Chain> {
    routing.chains.get(&ChainId(id)).filter(|chain| chain.restored != 0)
}

/// A target of a restored chain that was made after the backup, and whose store may hold something.
fn is_stranger(routing: &Routing, node: NodeId, report: &pb::TargetReport) -> bool {
    let Some(restored) = &routing.restored else { return false };
    let Some(chain) = restored_chain(routing, report.chain) else { return false };
    let is_of_disk = || {
        let node = routing.nodes.get(&node);
        node.is_some_and(|node| node.disks.iter().any(|disk| disk.uuid == report.disk_uuid))
    };
    (restored.targets_from..restored.targets_below).contains(&report.target)
        && !routing.targets.contains_key(&TargetId(report.target))
        && chain.members.len() <= limits::REPLICAS_MAX as usize
        && report.generation != 0
        && told(routing, report).is_some_and(|past| past.took_part != 0)
        && is_of_disk()
}

/// Whether the record lacks what a report says of a restored chain; `None`: this decides nothing.
pub(super) fn is_news(routing: &Routing, node: NodeId, report: &pb::TargetReport) -> Option<bool> {
    let Some(target) = routing.targets.get(&TargetId(report.target)) else {
        return Some(is_stranger(routing, node, report));
    };
    if target.node != node.0 || restored_chain(routing, target.chain).is_none() {
        return None;
    }
    let Some(past) = told(routing, report) else { return Some(false) };
    let known = target.past.as_ref().map(|past| (past.took_part, past.served));
    let differs =
        known != Some((past.took_part, past.served)) || target.generation != report.generation;
    differs.then_some(true)
}

/// Takes in what a report says of a restored chain. Returns false if the report is not to be used further.
pub(super) fn take_in(edit: &mut Edit<'_>, node: NodeId, report: &pb::TargetReport) -> bool {
    let routing = edit.routing();
    if is_stranger(routing, node, report) {
        adopt(edit, node, report);
        return true;
    }
    let Some(target) = routing.targets.get(&TargetId(report.target)) else { return true };
    if target.node != node.0 || restored_chain(routing, target.chain).is_none() {
        return true;
    }
    // Until it knows of the restore it may still change.
    let Some(past) = told(routing, report).cloned() else { return false };
    let next = pb::Target { generation: report.generation, past: Some(past), ..target.clone() };
    if next != *target {
        edit.put_target(next);
    }
    true
}

/// Makes a target that the backup does not know a member of its chain. One that the backup knows on the same node
/// was given up for it: a node has one store of a chain.
fn adopt(edit: &mut Edit<'_>, node: NodeId, report: &pb::TargetReport) {
    let mut chain = edit.routing().chains[&ChainId(report.chain)].clone();
    let before = chain.members.iter().find(|member| member.node == node.0).map(|m| m.target);
    chain.members.retain(|member| member.node != node.0);
    let state = PublicState::Lastsrv.into();
    chain.members.push(pb::ChainMember { target: report.target, state, node: node.0 });
    chain.version += 1;
    let id = chain.id;
    if let Some(old) = before.and_then(|old| edit.routing().targets.get(&TargetId(old)).cloned()) {
        give_up(old, edit);
    }
    edit.put_target(pb::Target {
        id: report.target,
        chain: id,
        node: node.0,
        disk_uuid: report.disk_uuid.clone(),
        public_state: state,
        local_state: LocalState::LocalOffline.into(),
        generation: report.generation,
        past: report.past.clone(),
        ..Default::default()
    });
    edit.put_chain(chain);
}

/// What keeps a restored chain from serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// This target was not heard.
    For(u64),
    /// No store that is there ever served.
    NobodyServed,
    /// This one served, and has lost its store since.
    Emptied(u64),
    /// This one took part in a later version than any that somebody served under.
    Overtaken { by: u64, under: u64 },
}

/// Who has everything that was acknowledged.
fn last_served(routing: &Routing, chain: &pb::Chain) -> Result<BTreeSet<u64>, Waits> {
    let members = || chain.members.iter().map(|member| member.target);
    let past = |id| routing.targets.get(&TargetId(id)).and_then(|target| target.past.as_ref());
    let heard: BTreeMap<u64, &pb::TargetPast> =
        members().filter_map(|id| Some((id, past(id)?))).collect();
    let last = heard.values().copied().max_by_key(|past| past.served);
    let last = last.filter(|past| past.served != 0);
    // What the stores remember is newer than the backup, or the backup's members count too.
    let is_newer = last.is_some_and(|last| last.served >= chain.restored);
    if let Some(silent) = members().find(|id| !is_newer && !heard.contains_key(id)) {
        return Err(Waits::For(silent));
    }
    let last = last.ok_or(Waits::NobodyServed)?;
    for member in &last.served_with {
        let took_part = heard.get(&member.target).ok_or(Waits::For(member.target))?.took_part;
        let might_serve = matches!(member.state(), PublicState::Serving | PublicState::Syncing);
        if might_serve && took_part == 0 {
            return Err(Waits::Emptied(member.target));
        }
    }
    let served = |past: &pb::TargetPast| past.served == last.served;
    if let Some((by, past)) = heard.iter().find(|(_, past)| past.took_part > last.served) {
        return Err(Waits::Overtaken { by: *by, under: past.took_part });
    }
    Ok(heard.iter().filter(|(_, past)| served(past)).map(|(id, _)| *id).collect())
}

/// Ends the wait if it is known who served last. Returns whether the chain changed.
pub(super) fn decide(edit: &mut Edit<'_>, id: ChainId) -> bool {
    let routing = edit.routing();
    let chain = &routing.chains[&id];
    let Ok(last) = last_served(routing, chain) else { return false };
    let mut chain = chain.clone();
    for member in &mut chain.members {
        let serves = last.contains(&member.target);
        let state = if serves { PublicState::Lastsrv } else { PublicState::Offline };
        member.set_state(state);
        let target = edit.routing().targets[&TargetId(member.target)].clone();
        edit.put_target(pb::Target { public_state: state.into(), past: None, ..target });
    }
    chain.members.sort_by_key(|member| rank(member.state()));
    chain.version += 1;
    chain.restored = 0;
    edit.put_chain(chain);
    true
}

/// For people: what a restored chain waits for; `None` for any other.
pub fn why_not_served(routing: &Routing, chain: &pb::Chain) -> Option<String> {
    if chain.restored == 0 {
        return None;
    }
    let reason = match last_served(routing, chain) {
        Ok(_) => "its members' next reports".to_owned(),
        Err(Waits::For(id)) => match routing.targets.get(&TargetId(id)) {
            Some(target) if target.node != 0 => {
                format!("target {id}: start ff2-storaged on node {}", target.node)
            }
            _ => format!("target {id}, which was made after the backup: start its storage node"),
        },
        Err(Waits::NobodyServed) => {
            "a store that ever served: those of the members that the backup knows are empty, so \
             others took their places after it; start their storage nodes"
                .to_owned()
        }
        Err(Waits::Emptied(id)) => format!(
            "whoever served after target {id}, which has lost its store since: start all storage \
             nodes"
        ),
        Err(Waits::Overtaken { by, under }) => format!(
            "whoever served under version {under}, in which target {by} took part: start all \
             storage nodes"
        ),
    };
    Some(format!(
        "chain {id} was restored from a backup and serves nothing until its stores told who served \
         last; it waits for {reason}; if that is gone for good, `ff2ctl chain revive {id} --from \
         TARGET --accept-data-loss --force` serves what TARGET holds",
        id = chain.id
    ))
}

#[cfg(test)]
mod tests;
