//! What an administrator changes of nodes and chains: metads that are removed and come back, disks by
//! name, chains that serve from an old replica.

use std::collections::BTreeSet;

use bytes::Bytes;
use ff2_meta_core::cluster::{PlaceError, limits::REPLICAS_MAX, placeable_disks};
use ff2_proto::{Code, NodeId, Status, TableId, TargetId, pb};
use pb::cluster_command::Fact;

use super::AdminState;
use crate::cluster::leader::ClusterLead;

impl AdminState {
    pub(super) async fn readmit(&self, node: u32) -> Result<(), tonic::Status> {
        let known = self.cluster.routing().nodes.get(&NodeId(node)).map(|node| node.role());
        if known == Some(pb::NodeRole::RoleUnknown) {
            self.propose(Fact::ReadmitNode(pb::ReadmitNode { node })).await?;
            tracing::info!(node, "a removed metad may join again");
        }
        Ok(())
    }

    /// The uuid of a disk that is named by its index on the node or by its uuid in hex.
    pub(super) fn disk_uuid(&self, node: u32, name: &str) -> Result<Bytes, Status> {
        let routing = self.cluster.routing();
        let Some(node) = routing.nodes.get(&NodeId(node)) else {
            return Err(Status::new(Code::NotFound, format!("there is no node {node}")));
        };
        let hex = |disk: &pb::Disk| -> String {
            disk.uuid.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let wanted = name.replace('-', "").to_lowercase();
        let is_meant = |disk: &&pb::Disk| disk.index.to_string() == name || hex(disk) == wanted;
        let Some(disk) = node.disks.iter().find(is_meant) else {
            let known: Vec<String> =
                node.disks.iter().map(|disk| format!("{} ({})", disk.index, hex(disk))).collect();
            let known = known.join(", ");
            let detail = format!("node {} has no disk {name}: it has [{known}]", node.id);
            return Err(Status::new(Code::NotFound, detail));
        };
        Ok(disk.uuid.clone())
    }

    /// The fact that revives a chain, with the store that the target's node has just reported.
    pub(super) fn revival(
        &self,
        lead: &ClusterLead,
        request: pb::ReviveChainRequest,
    ) -> Result<pb::ReviveChain, Status> {
        let pb::ReviveChainRequest { chain, target, accept_data_loss, force } = request;
        if !accept_data_loss {
            let detail = "what this target does not hold is lost: say --accept-data-loss";
            return Err(Status::new(Code::InvalidArgument, detail));
        }
        let routing = self.cluster.routing();
        let known = routing.targets.get(&TargetId(target));
        let reports = known.map(|target| lead.vitals(NodeId(target.node)).reports);
        let report = reports.and_then(|reports| reports.get(&TargetId(target)).cloned());
        let generation = report.map_or(0, |report| report.generation);
        Ok(pb::ReviveChain { chain, target, generation, force })
    }

    /// What is for storage nodes only is not done to a metad.
    pub(super) fn check_storage_node(&self, node: u32) -> Result<(), Status> {
        let known = self.cluster.routing().nodes.get(&NodeId(node)).map(|node| node.role());
        if known == Some(pb::NodeRole::Metad) {
            let detail = format!("node {node} is a metad: `ff2ctl metad remove {node}`");
            return Err(Status::new(Code::InvalidArgument, detail));
        }
        Ok(())
    }

    /// Whether a storage node may go: chains would lose a member that nobody makes anew.
    pub(super) fn check_removal(&self, node: u32, shrink: bool) -> Result<(), Status> {
        self.check_storage_node(node)?;
        let routing = self.cluster.routing();
        let targets = routing.targets.values().filter(|target| target.node == node).count();
        if targets == 0 || shrink {
            return Ok(());
        }
        let detail = format!(
            "node {node} has {targets} targets: `ff2ctl node drain {node} --wait` moves them to other nodes \
             first; or say --shrink, and their chains have fewer replicas until there is a place for others"
        );
        Err(Status::new(Code::InvalidArgument, detail))
    }

    /// Whether the chains of a table may have so many replicas; answers how it is now.
    pub(super) fn check_replicas(
        &self,
        request: &pb::SetReplicasRequest,
    ) -> Result<pb::SetReplicasReply, Status> {
        let pb::SetReplicasRequest { table_id, replicas, force } = *request;
        let refuse = |detail: String| Err(Status::new(Code::InvalidArgument, detail));
        let routing = self.cluster.routing();
        let Some(table) = routing.tables.get(&TableId(table_id)) else {
            return Err(Status::new(Code::NotFound, format!("there is no chain table {table_id}")));
        };
        let before = table.replicas;
        if !(1..=REPLICAS_MAX).contains(&replicas) {
            return refuse(format!("a chain has 1 to {REPLICAS_MAX} replicas"));
        }
        if replicas == 1 && before > 1 && !force {
            return refuse(
                "with a single replica the loss of a disk loses what is on it: say --force if that may be"
                    .to_owned(),
            );
        }
        let nodes: BTreeSet<NodeId> =
            placeable_disks(&routing).into_iter().map(|disk| disk.node).collect();
        if replicas > before && nodes.len() < replicas as usize {
            let there = nodes.len();
            return refuse(PlaceError::TooFewNodes { nodes: there, replicas }.to_string());
        }
        let chains = u32::try_from(table.chains.len()).unwrap_or(u32::MAX);
        Ok(pb::SetReplicasReply { before, chains })
    }

    pub(super) async fn remove_member(&self, node: u32) -> Result<(), Status> {
        let members = self.cluster.group.status().members;
        if members.iter().any(|member| member.node == node) && members.len() <= 1 {
            return Err(Status::new(Code::Busy, "the last metad cannot be removed"));
        }
        self.namespace.remove_node(node).await?;
        self.cluster.group.remove(node).await?;
        self.cluster.propose(Fact::RemoveNode(pb::RemoveNode { node })).await?;
        tracing::info!(node, "a metad was removed");
        Ok(())
    }
}
