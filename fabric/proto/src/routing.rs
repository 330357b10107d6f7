//! The cluster's routing information as one value, built from deltas.

use std::collections::BTreeMap;

use crate::{ChainId, NodeId, RoutingVersion, TableId, TargetId, VolumeId, pb};

/// Nodes, targets, chains, tables and volumes at one routing version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    pub version: RoutingVersion,
    pub cluster_id: String,
    pub nodes: BTreeMap<NodeId, pb::Node>,
    pub targets: BTreeMap<TargetId, pb::Target>,
    pub chains: BTreeMap<ChainId, pb::Chain>,
    pub tables: BTreeMap<TableId, pb::ChainTable>,
    pub volumes: BTreeMap<VolumeId, pb::Volume>,
    pub revoked_tokens: Vec<u64>,
    /// How often somebody asked for a scrub of all that is stored.
    pub scrub_round: u64,
    /// Targets are being moved from full disks to empty ones.
    pub rebalancing: bool,
    /// The feature level of the cluster (docs/design/0010); 0 if nothing is known yet.
    pub level: u32,
    /// The last restore of the cluster's facts from a backup. Known to the metads only.
    pub restored: Option<pb::Restored>,
}

impl Routing {
    /// Takes in what changed. Returns false, and changes nothing, if the delta does not build on
    /// what is here (the caller then asks for everything, `since` 0) or is not newer.
    pub fn apply(&mut self, delta: pb::RoutingDelta) -> bool {
        if delta.since > self.version.0 || delta.version <= self.version.0 {
            return false;
        }
        if delta.since == 0 {
            *self = Self::default();
        }
        self.version = RoutingVersion(delta.version);
        if !delta.cluster_id.is_empty() {
            self.cluster_id = delta.cluster_id;
        }
        self.scrub_round = delta.scrub_round;
        self.rebalancing = delta.rebalancing;
        self.level = delta.level;
        self.nodes.extend(delta.nodes.into_iter().map(|n| (NodeId(n.id), n)));
        self.targets.extend(delta.targets.into_iter().map(|t| (TargetId(t.id), t)));
        self.chains.extend(delta.chains.into_iter().map(|c| (ChainId(c.id), c)));
        self.tables.extend(delta.tables.into_iter().map(|t| (TableId(t.id), t)));
        self.volumes.extend(delta.volumes.into_iter().map(|v| (VolumeId(v.id), v)));
        if delta.revoked_changed {
            self.revoked_tokens = delta.revoked_tokens;
        }
        true
    }

    /// Takes in one newer chain, as a refusal carries it. Returns whether it was newer.
    pub fn apply_chain(&mut self, chain: &pb::Chain) -> bool {
        let known = self.chains.get(&ChainId(chain.id)).map_or(0, |c| c.version);
        let newer = chain.version > known;
        if newer {
            self.chains.insert(ChainId(chain.id), chain.clone());
        }
        newer
    }

    /// The chains that a layout's table had at the layout's version, in order. None if the table, or
    /// that version of it, is not known here (yet).
    pub fn table_chains(&self, layout: &pb::Layout) -> Option<Vec<ChainId>> {
        let table = self.tables.get(&TableId(layout.table))?;
        Some(table.chains_at(layout.table_version)?.iter().copied().map(ChainId).collect())
    }

    /// The members of a chain but for those that come beside another, which leaves for them, and those that leave.
    pub fn staying<'a>(&'a self, chain: &'a pb::Chain) -> impl Iterator<Item = &'a pb::Target> {
        let targets = chain.members.iter().filter_map(|m| self.targets.get(&TargetId(m.target)));
        targets.filter(|target| target.replaces == 0 && !target.leaving)
    }

    /// Where a node's data plane listens.
    pub fn address(&self, node: NodeId) -> Option<&str> {
        self.nodes.get(&node).map(|n| n.address.as_str()).filter(|a| !a.is_empty())
    }

    /// All addresses of the server that is known by this one, in the order in which a process of `zone` (empty: none
    /// is told) tries them: those in its zone, the one that the server is known by, those in other zones.
    pub fn ways_to(&self, address: &str, zone: &str) -> Vec<String> {
        let node = self.nodes.values().find(|node| node.address == address);
        let told = node.map_or(&[][..], |node| &node.addresses);
        let (near, far): (Vec<_>, Vec<_>) =
            told.iter().partition(|at| !zone.is_empty() && at.zone == zone);
        let mut ways: Vec<String> = Vec::with_capacity(told.len() + 1);
        let near = near.into_iter().map(|at| at.address.as_str());
        let far = far.into_iter().map(|at| at.address.as_str());
        for way in near.chain([address]).chain(far) {
            if ways.iter().all(|known| known != way) {
                ways.push(way.to_owned());
            }
        }
        ways
    }
}

/// Questions about one chain table.
pub trait TableExt {
    /// The chains of a version: an extension only appends, so each has a part of the newest's.
    fn chains_at(&self, version: u32) -> Option<&[u32]>;
}

impl TableExt for pb::ChainTable {
    fn chains_at(&self, version: u32) -> Option<&[u32]> {
        if version == 1 && self.sizes.is_empty() {
            // Made before tables could be extended.
            return Some(&self.chains);
        }
        let place = version.checked_sub(1)? as usize;
        self.chains.get(..*self.sizes.get(place)? as usize)
    }
}

/// Questions about one chain.
pub trait ChainExt {
    /// Members that serve, head first.
    fn serving(&self) -> impl Iterator<Item = &pb::ChainMember>;
    /// Members that receive updates (serving, then syncing), head first.
    fn writable(&self) -> impl Iterator<Item = &pb::ChainMember>;
    fn head(&self) -> Option<&pb::ChainMember>;
    /// The last serving member.
    fn tail(&self) -> Option<&pb::ChainMember>;
    fn member(&self, target: TargetId) -> Option<&pb::ChainMember>;
    /// Who receives this target's forwards.
    fn successor(&self, target: TargetId) -> Option<&pb::ChainMember>;
}

impl ChainExt for pb::Chain {
    fn serving(&self) -> impl Iterator<Item = &pb::ChainMember> {
        self.members.iter().filter(|m| m.state() == pb::PublicState::Serving)
    }

    fn writable(&self) -> impl Iterator<Item = &pb::ChainMember> {
        let syncing = self.members.iter().filter(|m| m.state() == pb::PublicState::Syncing);
        self.serving().chain(syncing)
    }

    fn head(&self) -> Option<&pb::ChainMember> {
        self.serving().next()
    }

    fn tail(&self) -> Option<&pb::ChainMember> {
        self.serving().last()
    }

    fn member(&self, target: TargetId) -> Option<&pb::ChainMember> {
        self.members.iter().find(|m| m.target == target.0)
    }

    fn successor(&self, target: TargetId) -> Option<&pb::ChainMember> {
        let mut members = self.writable().skip_while(|m| m.target != target.0);
        members.next()?;
        members.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::PublicState as S;

    fn chain(version: u64, members: &[(u64, S)]) -> pb::Chain {
        let members = members
            .iter()
            .map(|&(target, state)| pb::ChainMember { target, state: state.into(), node: 1 })
            .collect();
        pb::Chain { id: 1, version, members, changed_at: version, ..Default::default() }
    }

    #[test]
    fn roles_follow_order_and_state() {
        let c = chain(3, &[(1, S::Serving), (2, S::Serving), (4, S::Syncing), (3, S::Offline)]);
        assert_eq!(c.head().map(|m| m.target), Some(1));
        assert_eq!(c.tail().map(|m| m.target), Some(2));
        assert_eq!(c.successor(TargetId(1)).map(|m| m.target), Some(2));
        assert_eq!(c.successor(TargetId(2)).map(|m| m.target), Some(4));
        assert_eq!(c.successor(TargetId(4)), None);
        assert_eq!(c.successor(TargetId(3)), None);
    }

    #[test]
    fn the_address_in_the_own_zone_is_the_first_way_to_a_node() {
        let at = |(zone, address): (&str, &str)| pb::ZoneAddress {
            zone: zone.into(),
            address: address.into(),
        };
        let addresses = [("one", "a:1"), ("two", "b:1"), ("three", "c:1")].map(at).to_vec();
        let both = pb::Node { id: 101, address: "a:1".into(), addresses, ..Default::default() };
        let plain = pb::Node { id: 102, address: "d:1".into(), ..Default::default() };
        let nodes = [both, plain].map(|node| (NodeId(node.id), node)).into();
        let routing = Routing { nodes, ..Default::default() };
        assert_eq!(routing.ways_to("a:1", "one"), ["a:1", "b:1", "c:1"]);
        assert_eq!(routing.ways_to("a:1", "two"), ["b:1", "a:1", "c:1"]);
        assert_eq!(routing.ways_to("a:1", "four"), ["a:1", "b:1", "c:1"]);
        assert_eq!(routing.ways_to("a:1", ""), ["a:1", "b:1", "c:1"], "no zone is near to none");
        assert_eq!(routing.ways_to("d:1", "two"), ["d:1"], "told by a release without zones");
        assert_eq!(routing.ways_to("e:1", "two"), ["e:1"], "not a node of the cluster");
    }

    #[test]
    fn an_extended_table_still_has_its_earlier_versions() {
        let chains = (1..=8).collect();
        let table =
            pb::ChainTable { id: 3, version: 2, chains, sizes: vec![6, 8], ..Default::default() };
        let routing =
            Routing { tables: BTreeMap::from([(TableId(3), table)]), ..Default::default() };
        let chains = |table, table_version| {
            let layout = pb::Layout { table, table_version, ..Default::default() };
            routing.table_chains(&layout).map(|chains| chains.len())
        };
        assert_eq!((chains(3, 1), chains(3, 2)), (Some(6), Some(8)));
        assert_eq!((chains(3, 0), chains(3, 3), chains(4, 1)), (None, None, None));
    }

    #[test]
    fn deltas_build_on_what_is_known() {
        let mut routing = Routing::default();
        let full =
            pb::RoutingDelta { version: 5, chains: vec![chain(1, &[])], ..Default::default() };
        assert!(routing.apply(full));
        assert!(!routing.apply(pb::RoutingDelta { since: 6, version: 7, ..Default::default() }));
        assert!(!routing.apply(pb::RoutingDelta { since: 1, version: 4, ..Default::default() }));
        assert!(routing.apply(pb::RoutingDelta { since: 5, version: 6, ..Default::default() }));
        assert_eq!(routing.chains.len(), 1, "a delta keeps what it does not name");
        assert!(routing.apply_chain(&chain(2, &[])));
        assert!(!routing.apply_chain(&chain(2, &[])));
    }
}
