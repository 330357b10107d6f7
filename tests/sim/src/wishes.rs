//! What a person asks of the storage while it works: nodes to be emptied, more or fewer replicas, a rebalance.
//!
//! Every metad knows it, and whichever leads sees to it, as if the person asked until somebody does it.

use std::{collections::BTreeSet, time::Duration};

use ff2_proto::{Routing, pb};
use pb::{NodeRole, cluster_command::Fact};

use crate::{net::Place, rng::Rng, table::REPLICAS, world::STORAGEDS};

#[derive(Clone, Debug)]
pub(crate) struct Wishes {
    draining: BTreeSet<Place>,
    replicas: u32,
    /// How often a rebalance was asked for.
    pub(crate) rebalances: u64,
}

impl Default for Wishes {
    fn default() -> Self {
        Self { draining: BTreeSet::new(), replicas: REPLICAS, rebalances: 0 }
    }
}

impl Wishes {
    /// In one seed of three there are any.
    pub(crate) fn are_made(seed: u64) -> bool {
        seed.is_multiple_of(3)
    }

    /// The next wish, and when the one after it comes. While a disk has damage that nobody found, nobody asks for
    /// fewer replicas: those that go may be the ones that it would be repaired from.
    pub(crate) fn change(&mut self, rng: &mut Rng, is_damaged: bool) -> Duration {
        let before = self.replicas;
        let place = *rng.pick(&STORAGEDS).expect("there are storage nodes");
        match rng.within(0..10) {
            0..4 => {
                // Two at once leave some targets without a place: that must do no harm either.
                if !rng.chance(20) {
                    self.draining.clear();
                }
                self.draining.insert(place);
            }
            4..6 => self.draining.clear(),
            6..8 => self.replicas = *rng.pick(&[1, 2, 2, 3, 3, 4]).expect("a list"),
            _ => self.rebalances += 1,
        }
        if is_damaged {
            self.replicas = self.replicas.max(before);
        }
        Duration::from_millis(rng.within(500..20_000))
    }

    /// What can be done with the nodes that there are, for the end.
    pub(crate) fn settle(&mut self, rng: &mut Rng, is_damaged: bool) {
        let wished = rng.within(2..4) as u32;
        self.replicas = if is_damaged { self.replicas.max(wished) } else { wished };
        if self.replicas as usize == STORAGEDS.len() {
            self.draining.clear();
        }
        self.draining = self.draining.pop_first().into_iter().collect();
    }

    /// What the record lacks.
    pub(crate) fn missing(&self, routing: &Routing) -> Option<Fact> {
        let table = routing.tables.values().next()?;
        if table.replicas != self.replicas {
            let fact = pb::SetReplicas { table: table.id, replicas: self.replicas };
            return Some(Fact::SetReplicas(fact));
        }
        let is_wished = |node: &pb::Node| {
            let place = node.address.parse::<Place>().ok();
            place.is_some_and(|place| self.draining.contains(&place))
        };
        let storage = routing.nodes.values().filter(|node| node.role() == NodeRole::Storaged);
        let other = storage.into_iter().find(|node| node.draining != is_wished(node))?;
        let fact = pb::SetDraining { node: other.id, draining: !other.draining };
        Some(Fact::SetDraining(fact))
    }

    /// Whether no chain has more members that stay than it is to have.
    pub(crate) fn none_is_to_shrink(&self, routing: &Routing) -> bool {
        let has_more = |chain: &pb::Chain| routing.staying(chain).count() > self.replicas as usize;
        routing.chains.values().all(|chain| !has_more(chain))
            && routing.targets.values().all(|target| !target.leaving)
    }

    /// All of it is done.
    pub(crate) fn are_met(&self, routing: &Routing) -> bool {
        let is_empty = |node: &pb::Node| routing.targets.values().all(|t| t.node != node.id);
        let mut draining = routing.nodes.values().filter(|node| node.draining);
        let has_all = |chain: &pb::Chain| {
            let targets =
                chain.members.iter().filter_map(|m| routing.targets.get(&m.target.into()));
            let stays = |target: &&pb::Target| {
                target.replaces == 0 && !target.leaving && target.retiring == 0
            };
            chain.members.len() == self.replicas as usize
                && targets.filter(stays).count() == self.replicas as usize
        };
        self.missing(routing).is_none()
            && !routing.rebalancing
            && draining.all(is_empty)
            && routing.chains.values().all(has_all)
    }
}
