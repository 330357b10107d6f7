//! Targets that are given up, and those that take their place.

use ff2_proto::{ChainId, Status, TargetId, pb, status::Code};
use pb::{LocalState, PublicState};

use super::{Answer, invalid, moves::check_disk, not_found};
use crate::cluster::{edit::Edit, leave::newcomer_for};

/// Puts a new target in the place of an offline one, while others serve. It begins offline and
/// without a store; when its node has made one, it waits, syncs and serves as any that comes back.
pub(super) fn replace(fact: pb::ReplaceTarget, edit: &mut Edit<'_>) -> Answer {
    let (old, mut chain) = check(&fact, edit)?;
    let place = pb::PlacedTarget { node: fact.node, disk_uuid: fact.disk_uuid };
    let target = exchange(old, place, &mut chain, edit);
    chain.version += 1;
    edit.put_chain(chain);
    Ok(pb::ClusterReply { target, ..Default::default() })
}

/// Gives a member of the chain up for a new one, which is offline and has no store yet.
pub(super) fn exchange(
    old: pb::Target,
    place: pb::PlacedTarget,
    chain: &mut pb::Chain,
    edit: &mut Edit<'_>,
) -> u64 {
    let id = edit.record.next_target;
    edit.record.next_target += 1;
    for member in chain.members.iter_mut().filter(|member| member.target == old.id) {
        *member =
            pb::ChainMember { target: id, state: PublicState::Offline.into(), node: place.node };
    }
    edit.put_target(pb::Target {
        id,
        chain: chain.id,
        node: place.node,
        disk_uuid: place.disk_uuid,
        public_state: PublicState::Offline.into(),
        local_state: LocalState::LocalOffline.into(),
        // What the old one was to replace, the new one is.
        replaces: old.replaces,
        ..Default::default()
    });
    give_up(old, edit);
    id
}

fn check(fact: &pb::ReplaceTarget, edit: &Edit<'_>) -> Result<(pb::Target, pb::Chain), Status> {
    let routing = edit.routing();
    let old = routing.targets.get(&TargetId(fact.target)).filter(|target| target.chain != 0);
    let Some(old) = old.cloned() else {
        return Err(not_found(format!("there is no target {} (any more)", fact.target)));
    };
    let Some(chain) = routing.chains.get(&ChainId(old.chain)).cloned() else {
        return Err(Status::new(Code::Corrupt, format!("target {} has no chain", old.id)));
    };
    if old.public_state() != PublicState::Offline {
        let detail = format!("target {} is not offline: stop its node first", old.id);
        return Err(Status::new(Code::Busy, detail));
    }
    if let Some(newcomer) = newcomer_for(routing, &chain, old.id) {
        let detail = format!("target {} takes the place of {} already", newcomer.id, old.id);
        return Err(invalid(detail));
    }
    if chain.members.iter().all(|member| member.state() != PublicState::Serving) {
        let detail = format!("chain {} serves nothing: there is nothing to copy from", chain.id);
        return Err(Status::new(Code::Busy, detail));
    }
    let others = || chain.members.iter().filter(|member| member.target != old.id);
    if others().any(|member| member.node == fact.node) {
        let detail = format!("node {} holds another member of chain {}", fact.node, chain.id);
        return Err(invalid(detail));
    }
    check_disk(fact.node, &fact.disk_uuid, edit)?;
    Ok((old, chain))
}

/// The record of a target that is in no chain any more stays, so that every copy of the routing
/// learns of it, and its node drops the store. A newcomer that was to replace it is a member as any.
pub(in crate::cluster) fn give_up(target: pb::Target, edit: &mut Edit<'_>) {
    let chain = edit.routing().chains.get(&ChainId(target.chain));
    let newcomer = chain.and_then(|chain| newcomer_for(edit.routing(), chain, target.id));
    if let Some(newcomer) = newcomer.cloned() {
        edit.put_target(pb::Target { replaces: 0, ..newcomer });
    }
    edit.put_target(pb::Target {
        chain: 0,
        node: 0,
        public_state: PublicState::Offline.into(),
        local_state: LocalState::LocalOffline.into(),
        replaces: 0,
        leaving: false,
        retiring: 0,
        retired: false,
        past: None,
        ..target
    });
}
