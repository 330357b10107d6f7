//! The one function that decides every target state of a chain.
//!
//! [`next_chain`] is pure and total: a chain and one observation per member in, the chain as it must
//! be out. All members are judged together, because safety is a property of the chain: a write is
//! acknowledged only when every serving and syncing member holds it, therefore *every* member that
//! served at the moment the last one went holds all acknowledged writes (`LASTSRV`), and one that
//! left earlier does not.
//!
//! Rules, in order:
//! 1. Who serves and is there goes on serving; who finished its sync under this very version serves.
//! 2. If nobody does, the first last-serving member that is there with its data serves. In a chain
//!    that never served (version 1) all that are there do, for there is nothing to differ in.
//! 3. While somebody serves, everyone else may be copied over: gone is `OFFLINE`, there is `WAITING`.
//! 4. While nobody serves, those that served last stay `LASTSRV`, even if only one is left and comes
//!    back without its data: the cluster must go on naming what it waits for.
//! 5. One `WAITING` member becomes `SYNCING` if somebody serves and nobody syncs.
//!
//! The version grows by one exactly when a member's state or place changes.
//!
#![doc = include_str!("chain/table.md")]

use ff2_proto::pb::{self, PublicState};

/// What the cluster knows of one member when it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Observation {
    /// Its node is dead or restarted, its disk failed, or its store is not loaded.
    Gone,
    /// The store is there with the generation on record; whether it is complete is unproven.
    Online,
    /// Online, and its sync finished under the chain's present version.
    Complete,
    /// The store is there, but it is another one than the one on record: the data is lost.
    Lost,
}

impl Observation {
    pub const ALL: [Self; 4] = [Self::Gone, Self::Online, Self::Complete, Self::Lost];

    fn has_data(self) -> bool {
        matches!(self, Self::Online | Self::Complete)
    }
}

/// A chain of this version was created and has never served.
pub const NEWBORN_VERSION: u64 = 1;

/// The chain after these observations, one for each member, in the members' order. Returns an equal
/// chain if nothing changes; otherwise one whose version is greater by one.
pub fn next_chain(chain: &pb::Chain, observations: &[Observation]) -> pb::Chain {
    assert_eq!(chain.members.len(), observations.len(), "one observation for each member");
    let seen: Vec<(PublicState, Observation)> =
        chain.members.iter().map(known_state).zip(observations.iter().copied()).collect();
    let serves = who_serves(&seen, chain.version == NEWBORN_VERSION);
    let mut states = remaining_states(&seen, &serves);
    fill_sync_slot(&seen, &mut states);

    let mut members = chain.members.clone();
    for (member, state) in members.iter_mut().zip(&states) {
        member.set_state(*state);
    }
    // Stable: a member that begins to serve goes behind those that do, and one that failed behind
    // those that wait, so that a target that fails each sync does not keep the others from theirs.
    members.sort_by_key(|member| rank(known_state(member)));
    let changed = members != chain.members;
    let version = chain.version + u64::from(changed);
    let (changed_at, restored) = (chain.changed_at, chain.restored);
    pb::Chain { id: chain.id, version, members, changed_at, restored }
}

/// Place of a state in a chain's order.
pub(super) fn rank(state: PublicState) -> u32 {
    match state {
        PublicState::Serving => 0,
        PublicState::Lastsrv => 1,
        PublicState::Syncing => 2,
        PublicState::Waiting => 3,
        PublicState::Offline | PublicState::PublicUnknown => 4,
    }
}

/// A state that this release cannot name promises nothing: as good as offline.
fn known_state(member: &pb::ChainMember) -> PublicState {
    match member.state() {
        PublicState::PublicUnknown => PublicState::Offline,
        state => state,
    }
}

/// Rules 1 and 2.
fn who_serves(seen: &[(PublicState, Observation)], newborn: bool) -> Vec<bool> {
    let mut serves: Vec<bool> = seen
        .iter()
        .map(|&(state, observation)| match state {
            PublicState::Serving => observation.has_data(),
            // It received every write since its sync began, and the sync brought what was older.
            PublicState::Syncing => observation == Observation::Complete,
            PublicState::Lastsrv
            | PublicState::Waiting
            | PublicState::Offline
            | PublicState::PublicUnknown => false,
        })
        .collect();
    if serves.contains(&true) {
        return serves;
    }
    let mut chosen = 0;
    for (serve, &(state, observation)) in serves.iter_mut().zip(seen) {
        let may = state == PublicState::Lastsrv && observation.has_data();
        *serve = may && (newborn || chosen == 0);
        chosen += u32::from(*serve);
    }
    serves
}

/// Rules 3 and 4: the states of all, before one of the waiting is let in.
fn remaining_states(seen: &[(PublicState, Observation)], serves: &[bool]) -> Vec<PublicState> {
    use Observation::{Complete, Gone, Lost, Online};
    use PublicState::{Lastsrv, Offline, PublicUnknown, Serving, Syncing, Waiting};
    let somebody_serves = serves.contains(&true);
    let holds = |state| matches!(state, Serving | Lastsrv);
    let another_may_return = seen.iter().any(|&(state, seen)| holds(state) && seen == Gone);
    seen.iter()
        .zip(serves)
        .map(|(&(state, observation), &serve)| match (state, observation) {
            _ if serve => Serving,
            (Serving | Lastsrv, Gone) if !somebody_serves => Lastsrv,
            (Serving | Lastsrv, Lost) if !somebody_serves && !another_may_return => Lastsrv,
            (_, Gone) => Offline,
            (Syncing, Online | Complete) if somebody_serves => Syncing,
            (Serving | Lastsrv | Syncing | Waiting | Offline | PublicUnknown, _) => {
                debug_assert!(matches!(observation, Online | Complete | Lost));
                Waiting
            }
        })
        .collect()
}

/// Rule 5.
fn fill_sync_slot(seen: &[(PublicState, Observation)], states: &mut [PublicState]) {
    if !states.contains(&PublicState::Serving) || states.contains(&PublicState::Syncing) {
        return;
    }
    let next = seen.iter().zip(states).find(|((before, _), after)| {
        // A member that lost its data in the middle of its sync must be seen to leave the sync,
        // or the sender would go on where it stood.
        **after == PublicState::Waiting && *before != PublicState::Syncing
    });
    if let Some((_, state)) = next {
        *state = PublicState::Syncing;
    }
}

#[cfg(test)]
mod tests;
