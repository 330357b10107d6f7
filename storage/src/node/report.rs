//! What a heartbeat tells of this node.

use std::sync::atomic::Ordering;

use ff2_fabric::membership::Report;
use ff2_proto::pb;

use super::Node;

impl Node {
    pub(crate) fn report(&self) -> Report {
        let targets = self
            .all_targets()
            .iter()
            .map(|target| {
                let report = target.report();
                pb::TargetReport {
                    target: target.id().0,
                    local_state: report.local_state.into(),
                    generation: target.generation(),
                    chain_version: report.chain_version,
                    sync_done_chunks: report.sync_done_chunks,
                    sync_total_chunks: report.sync_total_chunks,
                    waiting_for: report.waiting_for,
                    ..Default::default()
                }
            })
            .collect();
        let traffic = &self.traffic;
        Report {
            targets,
            disks: self.disks.iter().map(super::NodeDisk::record).collect(),
            read_bytes: traffic.read_bytes.load(Ordering::Relaxed),
            write_bytes: traffic.write_bytes.load(Ordering::Relaxed),
            read_ops: traffic.read_ops.load(Ordering::Relaxed),
            write_ops: traffic.write_ops.load(Ordering::Relaxed),
        }
    }
}
