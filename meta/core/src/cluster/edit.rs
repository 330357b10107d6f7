//! One command's changes: every object put here gets the command's routing version, and goes to
//! the keys when the command ends.

use std::{collections::BTreeSet, sync::Arc};

use ff2_proto::{
    ChainId, NodeId, Routing, RoutingVersion, TableId, TargetId, VolumeId, level_of, pb,
};

use super::records;
use crate::kv::Kv;

#[derive(Debug)]
pub(super) struct Edit<'a> {
    routing: &'a mut Arc<Routing>,
    pub(super) record: &'a mut pb::ClusterRecord,
    touched: Touched,
}

#[derive(Debug, Default)]
struct Touched {
    nodes: BTreeSet<NodeId>,
    targets: BTreeSet<TargetId>,
    chains: BTreeSet<ChainId>,
    tables: BTreeSet<TableId>,
    volumes: BTreeSet<VolumeId>,
    record: bool,
    any: bool,
}

impl<'a> Edit<'a> {
    pub(super) fn new(routing: &'a mut Arc<Routing>, record: &'a mut pb::ClusterRecord) -> Self {
        Self { routing, record, touched: Touched::default() }
    }

    pub(super) fn routing(&self) -> &Routing {
        self.routing
    }

    pub(super) fn is_changed(&self) -> bool {
        self.touched.any || self.touched.record
    }

    /// The version that this command makes.
    pub(super) fn version(&self) -> u64 {
        self.record.routing_version + 1
    }

    pub(super) fn put_node(&mut self, mut node: pb::Node) {
        node.changed_at = self.version();
        self.touched.nodes.insert(NodeId(node.id));
        self.changing().nodes.insert(NodeId(node.id), node);
    }

    pub(super) fn put_target(&mut self, mut target: pb::Target) {
        target.changed_at = self.version();
        self.touched.targets.insert(TargetId(target.id));
        self.changing().targets.insert(TargetId(target.id), target);
    }

    pub(super) fn put_chain(&mut self, mut chain: pb::Chain) {
        let known = self.routing.chains.get(&ChainId(chain.id)).map_or(0, |c| c.version);
        assert!(chain.version > known, "a chain changes only with its version");
        chain.changed_at = self.version();
        self.touched.chains.insert(ChainId(chain.id));
        self.changing().chains.insert(ChainId(chain.id), chain);
    }

    pub(super) fn put_table(&mut self, mut table: pb::ChainTable) {
        table.changed_at = self.version();
        self.touched.tables.insert(TableId(table.id));
        self.changing().tables.insert(TableId(table.id), table);
    }

    pub(super) fn put_volume(&mut self, mut volume: pb::Volume) {
        volume.changed_at = self.version();
        self.touched.volumes.insert(VolumeId(volume.id));
        self.changing().volumes.insert(VolumeId(volume.id), volume);
    }

    pub(super) fn revoke(&mut self, token: u64) {
        self.record.revoked_tokens.push(token);
        self.changing().revoked_tokens.push(token);
    }

    pub(super) fn start_scrub(&mut self) -> u64 {
        self.record.scrub_round += 1;
        let round = self.record.scrub_round;
        self.changing().scrub_round = round;
        round
    }

    pub(super) fn set_rebalancing(&mut self, on: bool) {
        self.record.rebalancing = on;
        self.changing().rebalancing = on;
    }

    pub(super) fn raise_level(&mut self, level: u32) {
        self.record.level = level;
        self.changing().level = level;
    }

    pub(super) fn bootstrap(&mut self, bootstrap: pb::Bootstrap) {
        self.raise_level(level_of(bootstrap.level));
        self.changing().cluster_id.clone_from(&bootstrap.cluster_id);
        self.record.bootstrap = Some(bootstrap);
    }

    /// The record's counters changed, and nothing that readers of the routing see.
    pub(super) fn touch_record(&mut self) {
        self.touched.record = true;
    }

    /// Ends the command: the version moves if anything visible changed.
    pub(super) fn store(self, kv: &mut dyn Kv) {
        if !self.is_changed() {
            return;
        }
        if self.touched.any {
            self.record.routing_version += 1;
            Arc::make_mut(self.routing).version = RoutingVersion(self.record.routing_version);
        }
        let routing: &Routing = self.routing;
        self.touched.nodes.iter().for_each(|id| records::put_node(kv, &routing.nodes[id]));
        self.touched.targets.iter().for_each(|id| records::put_target(kv, &routing.targets[id]));
        self.touched.chains.iter().for_each(|id| records::put_chain(kv, &routing.chains[id]));
        self.touched.tables.iter().for_each(|id| records::put_table(kv, &routing.tables[id]));
        self.touched.volumes.iter().for_each(|id| records::put_volume(kv, &routing.volumes[id]));
        records::put_record(kv, self.record);
    }

    fn changing(&mut self) -> &mut Routing {
        self.touched.any = true;
        // Copies the routing if a reader holds the last view: a command is rare, readers are many.
        Arc::make_mut(self.routing)
    }
}
