//! From what is on record to [`next_chain`] and back: observations, decisions, and what must hold.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::{
    ChainId, NodeId, Routing, TargetId,
    marks::{Mark, reached},
    pb,
    routing::ChainExt,
};
use pb::{LocalState, PublicState};

use super::{
    chain::{NEWBORN_VERSION, Observation, next_chain, rank},
    edit::Edit,
    leave, limits, recall,
};

/// What a report says of a target, by what is on record of it.
pub(super) fn observe_report(routing: &Routing, report: &pb::TargetReport) -> Option<Observation> {
    let target = routing.targets.get(&TargetId(report.target))?;
    let chain = routing.chains.get(&ChainId(target.chain))?;
    let seen = match report.local_state() {
        LocalState::LocalUnknown | LocalState::LocalOffline => Observation::Gone,
        // Not created yet: nothing can be copied to it.
        _ if target.generation == 0 && report.generation == 0 => Observation::Gone,
        _ if target.generation != 0 && report.generation != target.generation => Observation::Lost,
        LocalState::UpToDate if report.chain_version == chain.version => Observation::Complete,
        // Complete as of another version proves nothing about this one.
        LocalState::UpToDate | LocalState::Online => Observation::Online,
    };
    Some(if can_work(routing, target) && !is_kept_out(target) { seen } else { Observation::Gone })
}

/// Whether a member is out of its chain because others do not reach it. One that serves, or did last, is not: see
/// [`leave`].
fn is_kept_out(target: &pb::Target) -> bool {
    let is_needed = matches!(target.public_state(), PublicState::Serving | PublicState::Lastsrv);
    target.gives_way && !is_needed
}

/// The local state that the record takes from a report; what it says of completeness holds for one
/// version only and is used in that one decision.
pub(super) fn local_state(seen: Observation) -> LocalState {
    match seen {
        Observation::Gone => LocalState::LocalOffline,
        Observation::Online => LocalState::Online,
        Observation::Complete => LocalState::UpToDate,
        // Until the generation is accepted: see `accept_generations`.
        Observation::Lost => LocalState::LocalUnknown,
    }
}

/// What the record says of a target.
pub(super) fn observe_record(routing: &Routing, target: &pb::Target) -> Observation {
    if !can_work(routing, target) || is_kept_out(target) {
        return Observation::Gone;
    }
    match target.local_state() {
        LocalState::LocalOffline => Observation::Gone,
        LocalState::Online | LocalState::UpToDate => Observation::Online,
        // Its store is another one. While the chain waits for the old one it must not be forgotten
        // that this is not it; otherwise it takes part when its next report names the new one.
        LocalState::LocalUnknown if target.public_state() == PublicState::Lastsrv => {
            Observation::Lost
        }
        LocalState::LocalUnknown => Observation::Gone,
    }
}

/// Decides these chains anew, together. `fresh` are the observations of the command itself, with
/// the generations it reports.
pub(super) fn judge(
    edit: &mut Edit<'_>,
    chains: &BTreeSet<ChainId>,
    fresh: &BTreeMap<TargetId, (Observation, u64)>,
) {
    for &id in chains {
        decide(edit, id, |routing, target| match fresh.get(&TargetId(target.id)) {
            Some(&(seen, _)) if can_work(routing, target) && !is_kept_out(target) => seen,
            _ => observe_record(routing, target),
        });
    }
    accept_generations(edit, fresh);
    for &id in chains {
        for decision in 0.. {
            assert!(decision < limits::DECISIONS_MAX, "chain {id} does not settle");
            if !decide(edit, id, observe_record) {
                break;
            }
        }
        leave::settle(edit, id);
    }
}

/// One decision about one chain. Returns whether it changed.
fn decide(
    edit: &mut Edit<'_>,
    id: ChainId,
    observe: impl Fn(&Routing, &pb::Target) -> Observation,
) -> bool {
    let routing = edit.routing();
    let Some(chain) = routing.chains.get(&id) else { return false };
    if chain.restored != 0 {
        return recall::decide(edit, id);
    }
    if is_waiting_for_birth(routing, chain) {
        return false;
    }
    let observations: Vec<Observation> = chain
        .members
        .iter()
        .map(|member| match routing.targets.get(&TargetId(member.target)) {
            Some(target) => observe(routing, target),
            None => Observation::Gone,
        })
        .collect();
    let next = next_chain(chain, &observations);
    if next == *chain {
        return false;
    }
    let serves = |chain: &pb::Chain| chain.serving().next().is_some();
    match (serves(chain), serves(&next)) {
        (true, false) => reached(Mark::ChainWaits),
        (false, true) if chain.version != NEWBORN_VERSION => reached(Mark::LastServes),
        _ => {}
    }
    if observations.contains(&Observation::Lost) {
        reached(Mark::StoreLost);
    }
    for member in &next.members {
        let Some(target) = edit.routing().targets.get(&TargetId(member.target)) else { continue };
        if target.public_state() != member.state() {
            let mut target = target.clone();
            target.set_public_state(member.state());
            edit.put_target(target);
        }
    }
    edit.put_chain(next);
    true
}

/// A chain that never served waits until each member that can be there has created its store: its
/// members then serve together, in the order that placement balanced, with nothing to copy.
fn is_waiting_for_birth(routing: &Routing, chain: &pb::Chain) -> bool {
    let uncreated = |member: &pb::ChainMember| {
        let target = routing.targets.get(&TargetId(member.target));
        target.is_some_and(|target| target.generation == 0 && can_work(routing, target))
    };
    chain.version == NEWBORN_VERSION && chain.members.iter().any(uncreated)
}

/// Takes the new store of a member that lost its data, once nothing waits for the old one.
fn accept_generations(edit: &mut Edit<'_>, fresh: &BTreeMap<TargetId, (Observation, u64)>) {
    for (id, &(seen, generation)) in fresh {
        let Some(target) = edit.routing().targets.get(id) else { continue };
        let waited_for = target.public_state() == PublicState::Lastsrv;
        if seen == Observation::Lost && generation != 0 && !waited_for {
            let mut target = target.clone();
            target.generation = generation;
            target.set_local_state(LocalState::Online);
            edit.put_target(target);
        }
    }
}

/// Whether the target's node and disk let it work at all.
pub(super) fn can_work(routing: &Routing, target: &pb::Target) -> bool {
    routing.nodes.get(&NodeId(target.node)).is_some_and(|node| {
        let disk = node.disks.iter().find(|disk| disk.uuid == target.disk_uuid);
        node.alive && disk.is_some_and(|disk| !disk.failed)
    })
}

/// What must hold of every routing that this machine makes.
pub(super) fn check(routing: &Routing) {
    for chain in routing.chains.values() {
        let count = |state| chain.members.iter().filter(|m| m.state() == state).count();
        let (serving, last) = (count(PublicState::Serving), count(PublicState::Lastsrv));
        assert!(count(PublicState::Syncing) <= 1, "chain {}: several sync", chain.id);
        assert!(serving == 0 || last == 0, "chain {}: serving and last-serving", chain.id);
        assert!(serving + last > 0, "chain {}: nobody to wait for", chain.id);
        assert!(chain.members.is_sorted_by_key(|m| rank(m.state())), "chain {}: order", chain.id);
        assert!(chain.changed_at <= routing.version.0);
        for member in &chain.members {
            let target = routing.targets.get(&TargetId(member.target)).expect("members exist");
            assert_eq!(target.public_state(), member.state(), "target {}", target.id);
            assert_eq!((target.chain, target.node), (chain.id, member.node));
            let replaced = chain.members.iter().find(|other| other.target == target.replaces);
            assert!(target.replaces == 0 || replaced.is_some(), "target {}: replaces", target.id);
            assert!(target.replaces != target.id);
            let retires = target.retiring != 0;
            assert!(!retires || member.state() == PublicState::Serving, "target {}", target.id);
            assert!(!retires || target.gives_way || leave::is_to_leave(routing, chain, target));
            assert!(retires || !target.retired);
        }
    }
}
