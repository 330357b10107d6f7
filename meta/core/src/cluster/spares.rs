//! Spares: what was on a disk that stays away is made anew on another, without anybody asking.
//!
//! The leader of group 0 remembers since when a member of a chain is offline, and after a while gives it
//! up for a new target elsewhere, one at a time. A new leader begins to count anew. A chain that serves
//! nothing has nothing to copy from and waits for its old members; and when many nodes are away at once,
//! it is the network or the power rather than their disks, and they come back with all they have. A chain
//! that one member alone serves gives up one store, and the next when the new one serves: the first copy
//! reads all that the one member has, and what it cannot read may be in a store that is only away.

use std::collections::BTreeMap;

use ff2_proto::{Routing, TargetId, pb, routing::ChainExt};
use pb::{NodeRole, PublicState};

use super::{
    destination::{Places, Wanted},
    leave::is_to_leave,
    limits,
    space::Space,
};

/// Since when members are away, by a leader's clock in milliseconds.
#[derive(Debug, Default)]
pub struct Spares {
    away_since: BTreeMap<TargetId, u64>,
}

impl Spares {
    /// The next target to replace, if one was away for `after_ms` and another disk may have it. Called from
    /// time to time; the same answer until the routing says that it was done.
    pub fn tick(
        &mut self,
        now: u64,
        after_ms: u64,
        routing: &Routing,
        space: impl Fn() -> Space,
    ) -> Option<pb::ReplaceTarget> {
        let away = |id: &TargetId| {
            let target = routing.targets.get(id);
            target.is_some_and(|t| t.chain != 0 && t.public_state() == PublicState::Offline)
        };
        self.away_since.retain(|id, _| away(id));
        for id in routing.targets.keys().filter(|id| away(id)) {
            self.away_since.entry(*id).or_insert(now);
        }
        let overdue = |since: &u64| now.saturating_sub(*since) >= after_ms;
        let is_late = |id: &TargetId| self.away_since.get(id).is_some_and(overdue);
        if is_outage(routing) || copies(routing, is_late) >= limits::SPARES_AT_ONCE {
            return None;
        }
        let mut overdue = self
            .away_since
            .iter()
            .filter(|(_, since)| overdue(since))
            .map(|(id, _)| *id)
            .peekable();
        overdue.peek()?;
        let space = space();
        let places = Places::new(routing, &space);
        overdue.find_map(|id| replacement(routing, &places, id))
    }
}

/// More than a quarter of the storage nodes are away.
pub(super) fn is_outage(routing: &Routing) -> bool {
    let nodes = || routing.nodes.values().filter(|node| node.role() == NodeRole::Storaged);
    nodes().filter(|node| !node.alive).count() * 4 > nodes().count()
}

/// Targets that are, or will be, copied. One that was not even made in time is nobody's burden: it is
/// overdue itself.
fn copies(routing: &Routing, is_late: impl Fn(&TargetId) -> bool) -> usize {
    let members = routing.chains.values().flat_map(|chain| &chain.members);
    let is_new = |member: &&pb::ChainMember| {
        let id = TargetId(member.target);
        match member.state() {
            PublicState::Syncing | PublicState::Waiting => true,
            PublicState::Offline => {
                let is_unmade = routing.targets.get(&id).is_some_and(|t| t.generation == 0);
                is_unmade && !is_late(&id)
            }
            _ => false,
        }
    };
    members.filter(is_new).count()
}

/// A disk for it on a node that has no other member of the chain. A member that leaves, and one that comes to
/// take its place, are not made anew: see [`super::moves`].
fn replacement(routing: &Routing, places: &Places<'_>, id: TargetId) -> Option<pb::ReplaceTarget> {
    let target = routing.targets.get(&id)?;
    let chain = routing.chains.get(&target.chain.into())?;
    let is_last_but_one = match chain.serving().count() {
        0 => return None,
        1 => is_being_copied(routing, chain, id),
        _ => false,
    };
    if is_last_but_one || target.replaces != 0 || is_to_leave(routing, chain, target) {
        return None;
    }
    let wanted = Wanted { chain, instead_of: Some(target) };
    let disk = places.destination(&wanted, |_| true).ok()??;
    let disk_uuid = disk.uuid.clone().into();
    Some(pb::ReplaceTarget { target: id.0, node: disk.node.0, disk_uuid })
}

/// Whether another member of the chain has still to get what it holds.
fn is_being_copied(routing: &Routing, chain: &pb::Chain, id: TargetId) -> bool {
    let mut others = chain.members.iter().filter(|member| member.target != id.0);
    others.any(|member| match member.state() {
        PublicState::Syncing | PublicState::Waiting => true,
        PublicState::Offline => {
            let other = routing.targets.get(&member.target.into());
            other.is_some_and(|other| other.generation == 0)
        }
        PublicState::Serving | PublicState::Lastsrv | PublicState::PublicUnknown => false,
    })
}

#[cfg(test)]
mod tests {
    use pb::cluster_command::Fact;

    use super::{super::tests::Cluster, *};

    const AFTER: u64 = 60_000;

    fn offline(routing: &Routing) -> usize {
        let is_away = |target: &&pb::Target| {
            target.chain != 0 && target.public_state() == PublicState::Offline
        };
        routing.targets.values().filter(is_away).count()
    }

    #[test]
    fn what_a_dead_node_held_is_made_anew_on_others() {
        let mut cluster = Cluster::serving(5, 3, 10);
        let mut spares = Spares::default();
        assert_eq!(spares.tick(0, AFTER, &cluster.routing(), Space::default), None);
        cluster.nodes_changed(&[101], &[]);
        assert_eq!(spares.tick(1_000, AFTER, &cluster.routing(), Space::default), None);
        assert_eq!(spares.tick(60_999, AFTER, &cluster.routing(), Space::default), None);
        let lost = offline(&cluster.routing());
        assert!(lost > 0);
        for _ in 0..lost {
            let fact = spares
                .tick(61_000, AFTER, &cluster.routing(), Space::default)
                .expect("one is left");
            let node = fact.node;
            cluster.ok(Fact::ReplaceTarget(fact));
            cluster.report(node);
            cluster.report_complete(node);
        }
        assert_eq!(spares.tick(900_000, AFTER, &cluster.routing(), Space::default), None);
        let routing = cluster.routing();
        assert_eq!(offline(&routing), 0);
        for chain in routing.chains.values() {
            let mut nodes: Vec<_> = chain.serving().map(|member| member.node).collect();
            nodes.sort_unstable();
            nodes.dedup();
            assert_eq!(nodes.len(), 3, "{chain:?}");
            assert!(!nodes.contains(&101));
        }
    }

    #[test]
    fn who_returns_in_time_keeps_its_place_and_begins_to_count_anew() {
        let mut cluster = Cluster::serving(5, 3, 10);
        let mut spares = Spares::default();
        cluster.nodes_changed(&[101], &[]);
        assert_eq!(spares.tick(0, AFTER, &cluster.routing(), Space::default), None);
        cluster.nodes_changed(&[], &[101]);
        cluster.report(101);
        // One chain after the other, as its member is complete as of the newest version.
        cluster.report_complete(101);
        assert_eq!(offline(&cluster.routing()), 0);
        assert_eq!(spares.tick(59_000, AFTER, &cluster.routing(), Space::default), None);
        cluster.nodes_changed(&[101], &[]);
        assert_eq!(spares.tick(61_000, AFTER, &cluster.routing(), Space::default), None);
        assert!(spares.tick(121_000, AFTER, &cluster.routing(), Space::default).is_some());
    }

    #[test]
    fn nothing_is_moved_in_an_outage_or_without_a_source_or_a_place() {
        let mut spares = Spares::default();
        let mut cluster = Cluster::serving(5, 3, 10);
        cluster.nodes_changed(&[101, 102], &[]);
        spares.tick(0, AFTER, &cluster.routing(), Space::default);
        assert_eq!(
            spares.tick(AFTER, AFTER, &cluster.routing(), Space::default),
            None,
            "two of five are away"
        );
        let mut cluster = Cluster::serving(4, 1, 4);
        cluster.nodes_changed(&[101], &[]);
        spares.tick(0, AFTER, &cluster.routing(), Space::default);
        assert_eq!(
            spares.tick(AFTER, AFTER, &cluster.routing(), Space::default),
            None,
            "nobody else has it"
        );
        let mut cluster = Cluster::serving(4, 4, 4);
        cluster.nodes_changed(&[101], &[]);
        spares.tick(0, AFTER, &cluster.routing(), Space::default);
        assert_eq!(
            spares.tick(AFTER, AFTER, &cluster.routing(), Space::default),
            None,
            "each node has one"
        );
    }

    /// The simulator's seed 578: the one that served could not read a chunk, which the one that was away had.
    #[test]
    fn a_chain_that_one_member_serves_gives_up_one_store_after_the_other() {
        let mut cluster = Cluster::serving(9, 3, 1);
        let routing = cluster.routing();
        let members = routing.chains.values().flat_map(|chain| &chain.members);
        let away: Vec<u32> = members.skip(1).map(|member| member.node).collect();
        let mut spares = Spares::default();
        cluster.nodes_changed(&away, &[]);
        spares.tick(0, AFTER, &cluster.routing(), Space::default);
        let mut next =
            |cluster: &Cluster, now| spares.tick(now, AFTER, &cluster.routing(), Space::default);
        let first = next(&cluster, AFTER).expect("the other may be away as well");
        cluster.ok(Fact::ReplaceTarget(first.clone()));
        assert_eq!(next(&cluster, AFTER + 1), None, "the new one is not even made");
        cluster.report(first.node);
        assert_eq!(next(&cluster, 3 * AFTER), None, "it is being copied");
        cluster.report_complete(first.node);
        let second = next(&cluster, 3 * AFTER).expect("two serve");
        assert_ne!(second.target, first.target);
    }

    #[test]
    fn only_so_many_are_copied_at_once() {
        let mut cluster = Cluster::serving(5, 3, 40);
        let mut spares = Spares::default();
        cluster.nodes_changed(&[101], &[]);
        spares.tick(0, AFTER, &cluster.routing(), Space::default);
        let lost = offline(&cluster.routing());
        assert!(lost > limits::SPARES_AT_ONCE);
        let mut replaced = 0;
        while let Some(fact) = spares.tick(AFTER, AFTER, &cluster.routing(), Space::default) {
            cluster.ok(Fact::ReplaceTarget(fact));
            replaced += 1;
        }
        assert_eq!(replaced, limits::SPARES_AT_ONCE);
        // None of them was made: the disks that were chosen do not hold up the rest for ever.
        let late = 2 * AFTER;
        assert!(spares.tick(late, AFTER, &cluster.routing(), Space::default).is_some());
    }
}
