//! Who leaves a chain two of whose members do not reach each other (docs/design/0012).
//!
//! Both live: each is heard by the metads, and a chain takes no update while a member does not get it. So one of
//! them gives way, for as long as a node that lives says that it does not reach it.

use std::collections::BTreeSet;

use ff2_proto::{NodeId, Routing, pb};
use pb::{NodeRole, PublicState};

use super::LeaseBook;
use crate::cluster::limits;

/// Two nodes between which the way is cut, the smaller first.
type Cut = (NodeId, NodeId);

impl LeaseBook {
    /// What the record does not know yet of members that others do not reach.
    pub(super) fn ways_changed(&self, routing: &Routing) -> Option<pb::WaysChanged> {
        if routing.level < limits::WAYS_LEVEL {
            return None;
        }
        let cuts = self.cuts(routing);
        let known: BTreeSet<u64> = routing
            .targets
            .values()
            .filter(|t| t.gives_way && t.chain != 0)
            .map(|t| t.id)
            .collect();
        if cuts.is_empty() && known.is_empty() {
            return None;
        }
        let chains = routing.chains.values();
        let out: BTreeSet<u64> =
            chains.flat_map(|chain| out_of(&chain.members, &cuts, routing)).collect();
        let cut = out.difference(&known).copied().collect();
        let mended = match self.has_heard_all(routing) {
            true => known.difference(&out).copied().collect(),
            // The one that is not heard yet may be the one that does not reach it.
            false => Vec::new(),
        };
        let changed = pb::WaysChanged { cut, mended };
        (changed != pb::WaysChanged::default()).then_some(changed)
    }

    fn cuts(&self, routing: &Routing) -> BTreeSet<Cut> {
        let lives = |id: &NodeId| routing.nodes.get(id).is_some_and(|node| node.alive);
        let said = self.nodes.iter().filter(|(id, entry)| {
            lives(id) && routing.nodes[*id].incarnation == entry.incarnation && entry.is_staying()
        });
        let pairs =
            said.flat_map(|(id, entry)| entry.unreachable.iter().map(move |other| (*id, *other)));
        pairs.filter(|(_, other)| lives(other)).map(|(a, b)| (a.min(b), a.max(b))).collect()
    }

    /// Whether each storage node that lives has sent a heartbeat to this leader.
    fn has_heard_all(&self, routing: &Routing) -> bool {
        let storages = routing.nodes.values().filter(|node| node.role() == NodeRole::Storaged);
        storages.filter(|node| node.alive).all(|node| {
            let entry = self.nodes.get(&NodeId(node.id));
            entry.is_some_and(|entry| {
                entry.incarnation == node.incarnation && entry.counters.is_some()
            })
        })
    }
}

/// Those of a chain that give way. Who serves stays rather than who does not, then who reaches more nodes, then who is
/// further ahead: so the first of those that serve always stays.
fn out_of(members: &[pb::ChainMember], cuts: &BTreeSet<Cut>, routing: &Routing) -> Vec<u64> {
    let lives = |m: &&pb::ChainMember| routing.nodes.get(&NodeId(m.node)).is_some_and(|n| n.alive);
    let ways_lost = |node: u32| cuts.iter().filter(|(a, b)| a.0 == node || b.0 == node).count();
    let mut order: Vec<&pb::ChainMember> = members.iter().filter(lives).collect();
    // Stable: those that are equal stay in the chain's order.
    order.sort_by_key(|member| (member.state() != PublicState::Serving, ways_lost(member.node)));
    let (mut stay, mut out): (Vec<NodeId>, Vec<u64>) = (Vec::new(), Vec::new());
    for member in order {
        let node = NodeId(member.node);
        let is_cut = |other: &NodeId| cuts.contains(&(node.min(*other), node.max(*other)));
        if stay.iter().any(is_cut) {
            out.push(member.target);
        } else {
            stay.push(node);
        }
    }
    out
}
