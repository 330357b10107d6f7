//! The end of an upgrade: the cluster's feature level rises to what all its members know (docs/design/0010).

use ff2_fabric::level;
use ff2_proto::{Routing, level_of, pb};
use pb::{NodeRole, cluster_command::Fact};

use super::AdminState;
use crate::cluster::leader::ClusterLead;

impl AdminState {
    pub(super) async fn finish_upgrade(&self) -> Result<pb::FinishUpgradeReply, tonic::Status> {
        let lead = self.leading()?;
        let routing = self.cluster.routing();
        let (before, level) = (level_of(routing.level), level::known());
        if level <= before {
            return Ok(pb::FinishUpgradeReply { before, level: before });
        }
        let waits_for = behind(&lead, &routing, level);
        if !waits_for.is_empty() {
            let text = format!(
                "the cluster stays at level {before}, because not all its members know level {level}: {}",
                waits_for.join("; ")
            );
            return Err(tonic::Status::invalid_argument(text));
        }
        self.propose(Fact::RaiseLevel(pb::RaiseLevel { level })).await?;
        tracing::info!(before, level, "the cluster's feature level is raised");
        Ok(pb::FinishUpgradeReply { before, level })
    }
}

/// The members that this leader has not heard to know a level, each with what to do. Those that are dead count: they
/// may come back with what they were.
fn behind(lead: &ClusterLead, routing: &Routing, level: u32) -> Vec<String> {
    let mut behind = Vec::new();
    for (id, node) in &routing.nodes {
        if !matches!(node.role(), NodeRole::Metad | NodeRole::Storaged) {
            continue;
        }
        let load = lead.vitals(*id).load;
        if node.alive && load.level >= level {
            continue;
        }
        let role = if node.role() == NodeRole::Metad { "metad" } else { "storage node" };
        behind.push(match (node.alive, load.level) {
            (false, _) => format!("{role} {id} ({}) is down: start it, or remove it", node.address),
            (true, 0) => format!("{role} {id} ({}) was not heard yet: try again", node.address),
            (true, known) => format!(
                "{role} {id} ({}) knows level {known} (release {}): install the new release there and restart it",
                node.address, shown(&load.release)
            ),
        });
    }
    behind
}

/// Says in a status that an upgrade is under way: members differ, or all know more than the cluster uses.
pub(super) fn unfinished(lead: &ClusterLead, routing: &Routing) -> Option<String> {
    let level = level::known();
    let now = level_of(routing.level);
    if level <= now {
        return None;
    }
    let behind = behind(lead, routing, level);
    Some(if behind.is_empty() {
        format!(
            "all programs know level {level} and the cluster uses {now}: `ff2ctl upgrade finish` ends the upgrade"
        )
    } else {
        format!("an upgrade to level {level} is under way: {}", behind.join("; "))
    })
}

fn shown(release: &str) -> &str {
    if release.is_empty() { "unknown" } else { release }
}
