//! When a member may leave its chain: only when all the others serve without it, and never unheard.
//!
//! A member that serves cannot just be left out: until it hears of it, it would answer reads that its chain
//! has overwritten, and those it is left to might be dead already without anybody knowing. So it leaves in
//! three steps, each on record:
//! 1. Once all the others serve, it is *retiring*: its store goes on taking and forwarding updates, and
//!    answers no reads any more.
//! 2. When it has said so (*retired*), every other member is waited for: one that knows this record and
//!    serves has outlived the last read of the one that leaves.
//! 3. It is taken out, and its store goes.
//!
//! One that others do not reach (docs/design/0012) takes the same steps, but its chain need only be served by
//! another; after the last one it is still a member, and offline.
//!
//! If somebody else is gone meanwhile, its chain still has it with all that was acknowledged: the
//! retirement ends, and it answers again. One that does not serve takes the last step alone.

use ff2_proto::{
    ChainId, Routing, TargetId,
    marks::{Mark, reached},
    pb,
    routing::ChainExt,
};
use pb::PublicState;

use super::edit::Edit;

/// The member of the chain that is to take this one's place.
pub(super) fn newcomer_for<'a>(
    routing: &'a Routing,
    chain: &pb::Chain,
    target: u64,
) -> Option<&'a pb::Target> {
    let targets = chain.members.iter().filter_map(|m| routing.targets.get(&TargetId(m.target)));
    targets.into_iter().find(|other| other.replaces == target)
}

/// Whether a member is to leave its chain, now or later.
pub(super) fn is_to_leave(routing: &Routing, chain: &pb::Chain, target: &pb::Target) -> bool {
    target.leaving || newcomer_for(routing, chain, target.id).is_some()
}

/// Whether the last step is due for a member, as far as the record knows.
pub(super) fn may_be_taken_out(routing: &Routing, chain: &pb::Chain, target: &pb::Target) -> bool {
    if !is_to_leave(routing, chain, target) {
        return false;
    }
    let newcomer = newcomer_for(routing, chain, target.id);
    let serves = |id: u64| {
        let member = chain.members.iter().find(|member| member.target == id);
        member.is_some_and(|member| member.state() == PublicState::Serving)
    };
    match target.public_state() {
        PublicState::Serving => target.retired && others_serve(chain, target.id),
        PublicState::Lastsrv => false,
        PublicState::Syncing
        | PublicState::Waiting
        | PublicState::Offline
        | PublicState::PublicUnknown => match newcomer {
            Some(newcomer) => serves(newcomer.id),
            None => chain.members.iter().any(|member| serves(member.target)),
        },
    }
}

/// Whether a member that serves is to do so no more because others, of whom one serves and stays, do not reach it.
pub(super) fn gives_way(routing: &Routing, chain: &pb::Chain, target: &pb::Target) -> bool {
    let stays = |member: &pb::ChainMember| {
        let other = routing.targets.get(&TargetId(member.target));
        member.target != target.id && other.is_some_and(|other| !other.gives_way)
    };
    target.gives_way && chain.serving().any(stays)
}

fn others_serve(chain: &pb::Chain, target: u64) -> bool {
    let mut others = chain.members.iter().filter(|member| member.target != target).peekable();
    others.peek().is_some() && others.all(|member| member.state() == PublicState::Serving)
}

/// Begins or ends the retirement of the chain's members, as their states are now.
pub(super) fn settle(edit: &mut Edit<'_>, id: ChainId) {
    let routing = edit.routing();
    let Some(chain) = routing.chains.get(&id) else { return };
    let mut changed = Vec::new();
    for member in &chain.members {
        let Some(target) = routing.targets.get(&TargetId(member.target)) else { continue };
        let retires = member.state() == PublicState::Serving
            && (gives_way(routing, chain, target)
                || is_to_leave(routing, chain, target) && others_serve(chain, target.id));
        if retires != (target.retiring != 0) {
            changed.push((target.clone(), retires));
        }
    }
    for (target, retires) in changed {
        if target.retired && !retires {
            reached(Mark::RetirementEnds);
        }
        let retiring = if retires { edit.version() } else { 0 };
        edit.put_target(pb::Target { retiring, retired: false, ..target });
    }
}
