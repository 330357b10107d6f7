//! Moves: a target goes to another disk, or a chain gets one member more or less, while all of it serves.
//!
//! A *newcomer* joins the chain beside the members that it has, is copied as any member that comes back, and
//! only when it serves the member that it replaces leaves (see [`super::leave`]). What is under way is in the
//! records of the targets, and why is too: nodes that drain, replicas that tables ask for, a rebalance. So a
//! new leader finds it and goes on; of its own it only remembers since when newcomers are away.
//!
//! The leader begins, gives up and ends moves one fact at a time. As many targets are copied at once as by
//! [`super::spares`], few of them on any disk; and nothing begins in an outage.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
};

use ff2_proto::{ChainId, Routing, TargetId, pb, routing::ChainExt};
use pb::{PublicState, cluster_command::Fact};

use super::{
    LeaseBook,
    destination::{NoPlace, Places, Wanted},
    judge::can_work,
    leave::{gives_way, may_be_taken_out},
    limits, rebalance,
    space::Space,
    spares::is_outage,
};

/// Since when newcomers are away, by a leader's clock in milliseconds.
#[derive(Debug, Default)]
pub struct Moves {
    away_since: BTreeMap<TargetId, u64>,
}

impl Moves {
    /// The next thing to do, if there is one. Called from time to time; the same answer until the routing says
    /// that it was done.
    pub fn tick(&mut self, now: u64, routing: &Routing, book: &LeaseBook) -> Option<Fact> {
        let under_way = UnderWay::of(routing);
        self.watch(now, routing);
        if let Some(fact) = end(routing, book, &under_way) {
            return Some(Fact::TakeOutTarget(fact));
        }
        if let Some(target) = self.hopeless(now, routing) {
            return Some(Fact::AbandonTarget(pb::AbandonTarget { target: target.0 }));
        }
        if !is_wanted(routing) || is_outage(routing) {
            return None;
        }
        let space = book.space(routing);
        let places = LazyCell::new(|| Places::new(routing, &space));
        let may_begin = under_way.copies < limits::SPARES_AT_ONCE;
        let drained = may_begin.then(|| drain(routing, &places, &under_way)).flatten();
        drained
            .map(Fact::MoveTarget)
            .or_else(|| replicas(routing, &places, &under_way, may_begin))
            .or_else(|| rebalance(routing, &space, &under_way, may_begin))
    }

    fn watch(&mut self, now: u64, routing: &Routing) {
        let is_away = |target: &pb::Target| {
            is_newcomer(target) && target.public_state() == PublicState::Offline
        };
        self.away_since.retain(|id, _| routing.targets.get(id).is_some_and(is_away));
        for (id, _) in routing.targets.iter().filter(|(_, target)| is_away(target)) {
            self.away_since.entry(*id).or_insert(now);
        }
    }

    /// A newcomer whose place is no good any more.
    fn hopeless(&self, now: u64, routing: &Routing) -> Option<TargetId> {
        let is_late = |id: &TargetId| {
            let since = self.away_since.get(id);
            since.is_some_and(|since| now.saturating_sub(*since) >= limits::NEWCOMER_PATIENCE_MS)
        };
        let drains = |target: &pb::Target| {
            routing.nodes.get(&target.node.into()).is_none_or(|node| node.draining)
        };
        let mut coming = routing.targets.iter().filter(|(_, target)| is_coming(target));
        coming.find(|(id, target)| is_late(id) || drains(target)).map(|(id, _)| *id)
    }
}

/// What is copied and moved at this moment.
pub(super) struct UnderWay {
    /// Targets that are, or will be, copied, in all and by disk.
    copies: usize,
    filled: BTreeMap<Vec<u8>, usize>,
    /// Members that newcomers replace, and their disks.
    replaced: BTreeSet<u64>,
    emptied: BTreeMap<Vec<u8>, usize>,
    /// Chains with a member that comes or goes.
    busy: BTreeSet<u32>,
}

impl UnderWay {
    pub(super) fn of(routing: &Routing) -> Self {
        let mut this = Self {
            copies: 0,
            filled: BTreeMap::new(),
            replaced: BTreeSet::new(),
            emptied: BTreeMap::new(),
            busy: BTreeSet::new(),
        };
        for target in routing.targets.values().filter(|target| target.chain != 0) {
            if is_copied(routing, target) {
                this.copies += 1;
                *this.filled.entry(target.disk_uuid.to_vec()).or_default() += 1;
            }
            if is_newcomer(target) {
                this.replaced.insert(target.replaces);
                let source = routing.targets.get(&TargetId(target.replaces));
                let disk = source.map(|source| source.disk_uuid.to_vec());
                *this.emptied.entry(disk.unwrap_or_default()).or_default() += 1;
            }
            if is_newcomer(target) || target.leaving {
                this.busy.insert(target.chain);
            }
        }
        this
    }

    fn is_free(&self, disk: &[u8]) -> bool {
        let count = |disks: &BTreeMap<Vec<u8>, usize>| disks.get(disk).copied().unwrap_or(0);
        count(&self.filled) + count(&self.emptied) < limits::MOVES_PER_DISK
    }
}

fn is_newcomer(target: &pb::Target) -> bool {
    target.chain != 0 && target.replaces != 0
}

/// A newcomer that does not serve yet.
fn is_coming(target: &pb::Target) -> bool {
    let serves = matches!(target.public_state(), PublicState::Serving | PublicState::Lastsrv);
    is_newcomer(target) && !serves
}

/// A target that is, or will be, copied. One that is away is nobody's burden.
fn is_copied(routing: &Routing, target: &pb::Target) -> bool {
    match target.public_state() {
        PublicState::Syncing | PublicState::Waiting => true,
        PublicState::Offline => {
            (target.generation == 0 || target.replaces != 0) && can_work(routing, target)
        }
        PublicState::Serving | PublicState::Lastsrv | PublicState::PublicUnknown => false,
    }
}

/// Whether there is anything to look for: most of the time there is not.
fn is_wanted(routing: &Routing) -> bool {
    let drains = routing.nodes.values().any(|node| node.draining);
    let is_other = |table: &pb::ChainTable| {
        let mut chains = table.chains.iter().filter_map(|id| routing.chains.get(&ChainId(*id)));
        chains.any(|chain| chain.members.len() != table.replicas as usize)
    };
    drains || routing.rebalancing || routing.tables.values().any(is_other)
}

/// A member that may go now.
fn end(routing: &Routing, book: &LeaseBook, under_way: &UnderWay) -> Option<pb::TakeOutTarget> {
    let is_leaving = |target: &&pb::Target| {
        target.leaving || target.gives_way || under_way.replaced.contains(&target.id)
    };
    let leaving = routing.targets.values().filter(|target| target.chain != 0).filter(is_leaving);
    let mut leaving = leaving.filter_map(|target| {
        let chain = routing.chains.get(&ChainId(target.chain))?;
        Some((target, chain))
    });
    let (target, chain) = leaving.find(|(target, chain)| {
        let retires = target.retired && gives_way(routing, chain, target);
        (retires || may_be_taken_out(routing, chain, target))
            && book.hears_without(routing, chain, target)
    })?;
    Some(pb::TakeOutTarget { target: target.id, chain_version: chain.version })
}

/// What still lies on nodes that drain, and may begin to move.
fn draining(routing: &Routing) -> impl Iterator<Item = (&pb::Target, &pb::Chain)> {
    let drains = |target: &&pb::Target| {
        routing.nodes.get(&target.node.into()).is_some_and(|node| node.draining)
    };
    let targets = routing.targets.values().filter(|target| target.chain != 0).filter(drains);
    targets.filter_map(|target| Some((target, routing.chains.get(&ChainId(target.chain))?)))
}

fn drain<'a>(
    routing: &'a Routing,
    places: &impl Deref<Target = Places<'a>>,
    under_way: &UnderWay,
) -> Option<pb::MoveTarget> {
    let mut waiting = draining(routing).filter(|(target, chain)| {
        let is_free = under_way.is_free(&target.disk_uuid);
        is_free && !under_way.busy.contains(&chain.id) && chain.serving().next().is_some()
    });
    waiting.find_map(|(target, chain)| {
        let wanted = Wanted { chain, instead_of: None };
        let disk = places.destination(&wanted, |uuid| under_way.is_free(uuid)).ok()??;
        let disk_uuid = disk.uuid.clone().into();
        Some(pb::MoveTarget { target: target.id, node: disk.node.0, disk_uuid })
    })
}

/// Chains with more or fewer members than their table asks for.
fn differing(routing: &Routing) -> impl Iterator<Item = (&pb::Chain, usize)> {
    let of_table = |table: &pb::ChainTable| -> Vec<(u32, usize)> {
        table.chains.iter().map(|chain| (*chain, table.replicas as usize)).collect()
    };
    let wanted = routing.tables.values().flat_map(of_table);
    let chains =
        wanted.filter_map(|(id, wanted)| Some((routing.chains.get(&ChainId(id))?, wanted)));
    chains.filter(|(chain, wanted)| {
        chain.members.len() != *wanted && routing.staying(chain).count() != *wanted
    })
}

fn replicas<'a>(
    routing: &'a Routing,
    places: &impl Deref<Target = Places<'a>>,
    under_way: &UnderWay,
    may_begin: bool,
) -> Option<Fact> {
    differing(routing).find_map(|(chain, wanted)| {
        let there = routing.staying(chain).count();
        if there > wanted {
            let target = superfluous(routing, places, chain, wanted)
                .filter(|_| !under_way.busy.contains(&chain.id))?;
            return Some(Fact::RetireTarget(pb::RetireTarget { target, stay: false }));
        }
        let members = || chain.members.iter().filter_map(|m| routing.targets.get(&m.target.into()));
        if let Some(leaving) = members().find(|target| target.leaving) {
            let target = leaving.id;
            return Some(Fact::RetireTarget(pb::RetireTarget { target, stay: true }));
        }
        let is_copied = members().any(|target| is_copied(routing, target));
        let is_busy = is_copied || under_way.busy.contains(&chain.id);
        if !may_begin || is_busy || chain.serving().next().is_none() {
            return None;
        }
        let wanted = Wanted { chain, instead_of: None };
        let disk = places.destination(&wanted, |uuid| under_way.is_free(uuid)).ok()??;
        let disk_uuid = disk.uuid.clone().into();
        Some(Fact::AddTarget(pb::AddTarget { chain: chain.id, node: disk.node.0, disk_uuid }))
    })
}

/// The member to go when a chain has more than it is to have, once as many as it is to have serve without it:
/// one that does not serve rather than one that does, then one on a node that drains, then one on the disk
/// with the most targets.
fn superfluous(
    routing: &Routing,
    places: &Places<'_>,
    chain: &pb::Chain,
    wanted: usize,
) -> Option<u64> {
    let victim = routing.staying(chain).max_by_key(|target| {
        let serves = target.public_state() == PublicState::Serving;
        let drains = routing.nodes.get(&target.node.into()).is_some_and(|node| node.draining);
        (!serves, drains, places.staying_on(&target.disk_uuid), target.id)
    })?;
    let others = chain.serving().filter(|member| member.target != victim.id).count();
    (others >= wanted).then_some(victim.id)
}

fn rebalance(
    routing: &Routing,
    space: &Space,
    under_way: &UnderWay,
    may_begin: bool,
) -> Option<Fact> {
    if !routing.rebalancing {
        return None;
    }
    let next = rebalance::next(routing, space, |from, to| {
        under_way.is_free(from) && under_way.is_free(to)
    });
    match next {
        rebalance::Next::Move(fact) if may_begin => Some(Fact::MoveTarget(fact)),
        rebalance::Next::Move(_) | rebalance::Next::Later => None,
        rebalance::Next::Even if under_way.replaced.is_empty() => {
            Some(Fact::SetRebalancing(pb::SetRebalancing { on: false }))
        }
        rebalance::Next::Even => None,
    }
}

/// What is to move or to be added, and has no place; not all of it in a large cluster.
pub fn stuck(routing: &Routing, space: &Space) -> Vec<pb::StuckMove> {
    if !is_wanted(routing) {
        return Vec::new();
    }
    let (under_way, places) = (UnderWay::of(routing), Places::new(routing, space));
    let (held, leaving): (Vec<_>, Vec<_>) =
        draining(routing).partition(|(target, _)| under_way.replaced.contains(&target.id));
    let leaving = leaving.into_iter().map(|(target, chain)| (target.id, target.node, chain));
    let is_short = |(chain, wanted): &(&pb::Chain, usize)| routing.staying(chain).count() < *wanted;
    let growing = differing(routing).filter(is_short).map(|(chain, _)| (0, 0, chain));
    let looked_at = leaving.chain(growing).take(limits::STUCK_LOOKED_AT);
    let found = looked_at.filter_map(|(target, node, chain)| {
        let why = match places.destination(&Wanted { chain, instead_of: None }, |_| true) {
            _ if chain.serving().next().is_none() => NoPlace::NothingToCopy,
            Ok(_) => return None,
            Err(why) => why,
        };
        Some(pb::StuckMove { chain: chain.id, target, node, why: why.to_string() })
    });
    let held = held.into_iter().take(limits::STUCK_LOOKED_AT);
    let held = held.filter_map(|(target, chain)| {
        let why = held_by_the_dead(routing, chain, target)?;
        Some(pb::StuckMove { chain: chain.id, target: target.id, node: target.node, why })
    });
    found.chain(held).collect()
}

/// A member whose newcomer serves leaves when all others do (see [`super::leave`]): which waits for ever for one whose
/// node is gone and that has no spare.
fn held_by_the_dead(routing: &Routing, chain: &pb::Chain, target: &pb::Target) -> Option<String> {
    let others = || chain.members.iter().filter(|member| member.target != target.id);
    let is_copied = others().any(|member| {
        let other = routing.targets.get(&TargetId(member.target));
        other.is_some_and(|other| other.replaces == target.id)
            && member.state() != PublicState::Serving
    });
    let is_dead = |member: &&pb::ChainMember| {
        let node = routing.nodes.get(&member.node.into());
        member.state() != PublicState::Serving && node.is_none_or(|node| !node.alive)
    };
    let dead = others().find(is_dead).filter(|_| !is_copied)?;
    let node = dead.node;
    Some(format!(
        "its data is copied, and it serves on because target {} of its chain lies on node {node}, which is dead: \
         start that server, or, if it is gone for good, `ff2ctl node remove {node} --shrink`",
        dead.target
    ))
}

#[cfg(test)]
mod tests;
