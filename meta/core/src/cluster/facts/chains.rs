//! What an administrator decides about a chain whose last complete copies are gone for good.

use ff2_proto::{ChainId, Status, TargetId, pb};
use pb::{LocalState, PublicState};

use super::{Answer, invalid, not_found, targets::exchange};
use crate::cluster::{
    chain::{Observation, rank},
    edit::Edit,
    judge::observe_record,
};

/// Lets a chain serve from a member that does not hold everything acknowledged.
///
/// Every other member is given up for a new, empty one in the same place: it may hold newer updates than
/// this one, and chain replication rests on a successor never being ahead.
pub(super) fn revive(fact: &pb::ReviveChain, edit: &mut Edit<'_>) -> Answer {
    let mut chain = check(fact, edit)?;
    // Whoever was to come or to go: the members that there are now begin anew, and the leader counts them.
    for member in &chain.members {
        let target = edit.routing().targets.get(&TargetId(member.target)).cloned();
        if let Some(target) = target.filter(|target| target.replaces != 0 || target.leaving) {
            edit.put_target(pb::Target { replaces: 0, leaving: false, ..target });
        }
    }
    for member in chain.members.clone() {
        let target = edit.routing().targets.get(&TargetId(member.target)).cloned();
        let mut target = target.expect("members exist");
        if target.id != fact.target {
            let (node, disk_uuid) = (target.node, target.disk_uuid.clone());
            exchange(target, pb::PlacedTarget { node, disk_uuid }, &mut chain, edit);
            continue;
        }
        target.set_public_state(PublicState::Serving);
        target.set_local_state(LocalState::Online);
        target.past = None;
        if fact.generation != 0 {
            target.generation = fact.generation;
        }
        edit.put_target(target);
    }
    for member in chain.members.iter_mut().filter(|member| member.target == fact.target) {
        member.set_state(PublicState::Serving);
    }
    chain.members.sort_by_key(|member| rank(member.state()));
    chain.version += 1;
    // Whatever others may hold: the administrator decided.
    chain.restored = 0;
    edit.put_chain(chain);
    Ok(pb::ClusterReply::default())
}

/// No refusal is BUSY: that would be tried again, and only a person can change what it says.
fn check(fact: &pb::ReviveChain, edit: &Edit<'_>) -> Result<pb::Chain, Status> {
    let routing = edit.routing();
    let Some(chain) = routing.chains.get(&ChainId(fact.chain)).cloned() else {
        return Err(not_found(format!("there is no chain {}", fact.chain)));
    };
    let member = chain.members.iter().find(|member| member.target == fact.target);
    let target = routing.targets.get(&TargetId(fact.target));
    let (Some(member), Some(target)) = (member, target) else {
        let detail = format!("target {} is not a member of chain {}", fact.target, chain.id);
        return Err(invalid(detail));
    };
    if chain.members.iter().any(|member| member.state() == PublicState::Serving) {
        let detail = format!("chain {} serves: there is nothing to revive", chain.id);
        return Err(invalid(detail));
    }
    match observe_record(routing, target) {
        Observation::Online | Observation::Complete => {}
        Observation::Lost if fact.generation != 0 => {}
        Observation::Gone | Observation::Lost => {
            let detail = format!(
                "the store of target {} is not there: start ff2-storaged on node {} first",
                fact.target, member.node
            );
            return Err(invalid(detail));
        }
    }
    let may_return = chain.members.iter().find(|other| {
        let target = routing.targets.get(&TargetId(other.target));
        other.state() == PublicState::Lastsrv
            && target.is_none_or(|target| observe_record(routing, target) != Observation::Lost)
    });
    if let Some(other) = may_return.filter(|_| !fact.force) {
        let detail = format!(
            "target {} on node {} has everything acknowledged and may still return: bring that node \
             back; if its data is gone for good, say --force",
            other.target, other.node
        );
        return Err(invalid(detail));
    }
    Ok(chain)
}
