//! Which part of a node's report is news to the record.

use std::collections::BTreeMap;

use ff2_proto::{ChainId, NodeId, Routing, TargetId, pb};
use pb::{LocalState, PublicState};

use crate::cluster::{
    chain::Observation,
    judge::{local_state, observe_report},
    recall,
};

/// The changed part of a report, or `None` if the record knows all of it.
pub(super) fn changes(
    routing: &Routing,
    node: &pb::Node,
    reports: &BTreeMap<TargetId, pb::TargetReport>,
    disks: &[pb::Disk],
) -> Option<pb::TargetsReported> {
    let disks = if disks_changed(&node.disks, disks) { disks.to_vec() } else { Vec::new() };
    let targets: Vec<pb::TargetReport> =
        reports.values().filter(|report| is_news(routing, node.id, report)).cloned().collect();
    let silent = disks.is_empty() && targets.is_empty();
    (!silent).then_some(pb::TargetsReported { node_id: node.id, targets, disks })
}

fn is_news(routing: &Routing, node: u32, report: &pb::TargetReport) -> bool {
    if let Some(decided) = recall::is_news(routing, NodeId(node), report) {
        return decided;
    }
    let Some(target) = routing.targets.get(&TargetId(report.target)) else { return false };
    if target.node != node || !routing.chains.contains_key(&ChainId(target.chain)) {
        return false;
    }
    let Some(seen) = observe_report(routing, report) else { return false };
    if target.retiring != 0 && report.retired == target.retiring && !target.retired {
        return true;
    }
    let waits_for_old = target.public_state() == PublicState::Lastsrv;
    match seen {
        Observation::Complete if target.public_state() == PublicState::Syncing => true,
        // A lost store is accepted as soon as nothing waits for the old one.
        Observation::Lost => {
            let acceptable = !waits_for_old && report.generation != 0;
            acceptable || target.local_state() != local_state(seen)
        }
        Observation::Gone => target.local_state() != local_state(seen),
        Observation::Online | Observation::Complete => {
            target.generation == 0 || !is_recorded_as_online(target)
        }
    }
}

/// Up to date and online differ only while a member syncs.
fn is_recorded_as_online(target: &pb::Target) -> bool {
    matches!(target.local_state(), LocalState::Online | LocalState::UpToDate)
}

/// What matters for placement and for the targets; the space in use changes all the time.
fn disks_changed(recorded: &[pb::Disk], reported: &[pb::Disk]) -> bool {
    let key = |disk: &pb::Disk| {
        (disk.index, disk.uuid.clone(), disk.path.clone(), disk.capacity_bytes, disk.failed)
    };
    !reported.is_empty() && !recorded.iter().map(key).eq(reported.iter().map(key))
}
