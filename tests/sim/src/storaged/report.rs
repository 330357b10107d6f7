//! A storage node and the cluster: joins, heartbeats, leases, and the routing that comes with them.

use std::time::Duration;

use ff2_proto::{Code, Status, TargetId, pb};

use super::{Asked, CALL_TIMEOUT, Storaged};
use crate::{
    message::{Answer, Call},
    mutation::Mutation,
    net::Place,
    world::Context,
};

impl Storaged {
    /// Joins, or sends the heartbeat that is due.
    pub(super) fn report(&mut self, cx: &mut Context<'_>) {
        let running = self.running();
        if running.reporting || cx.now < running.heartbeat_at {
            return;
        }
        let node = self.node;
        let generations = self.generations.clone();
        let disk = self.disk_record();
        let lies = self.mutation == Some(Mutation::Retire);
        let running = self.running();
        running.reporting = true;
        running.heartbeat_at = cx.now + running.heartbeat;
        let sent = cx.now;
        let (asked, call) = if running.joined {
            let retiring =
                |id| running.routing.targets.get(&id).map_or(0, |target| target.retiring);
            let targets = running
                .targets
                .values()
                .map(|target| {
                    let report = target.report();
                    pb::TargetReport {
                        target: target.id().0,
                        local_state: report.local_state.into(),
                        generation: generations[&target.id()],
                        chain_version: report.chain_version,
                        retired: if lies { retiring(target.id()) } else { report.retired },
                        held_at: if target.holds() { running.routing.version.0 } else { 0 },
                        ..Default::default()
                    }
                })
                .collect();
            let request = pb::HeartbeatRequest {
                node_id: node,
                incarnation: running.incarnation,
                targets,
                disks: vec![disk],
                routing_version: running.routing.version.0,
                unreachable: running.cuts.cut().map(|node| node.0).collect(),
                ..Default::default()
            };
            (Asked::Heartbeat { sent }, Call::Heartbeat(request))
        } else {
            let request = pb::JoinRequest {
                node_id: node,
                role: pb::NodeRole::Storaged.into(),
                address: cx.place.to_string(),
                disks: vec![disk],
                incarnation: running.incarnation,
                ..Default::default()
            };
            (Asked::Join { sent }, Call::Join(request))
        };
        let metad = cx.metads[running.metad];
        self.ask(cx, metad, call, CALL_TIMEOUT, asked);
    }

    fn disk_record(&self) -> pb::Disk {
        let uuid = bytes::Bytes::from(vec![self.place as u8; 16]);
        pb::Disk { uuid, capacity_bytes: 1 << 30, ..Default::default() }
    }

    pub(super) fn on_joined(&mut self, cx: &mut Context<'_>, sent: Duration, answer: Answer) {
        self.running().reporting = false;
        let reply = match answer {
            Answer::Joined(Ok(reply)) => reply,
            Answer::Joined(Err(status)) => return self.other_metad(cx, &status),
            _ => return self.other_metad(cx, &Code::Unreachable.into()),
        };
        self.node = reply.node_id;
        let running = self.running();
        running.joined = true;
        running.lease_ms = reply.lease_ms;
        running.heartbeat = Duration::from_millis(reply.heartbeat_ms.into());
        running.lease_until = sent + Duration::from_millis(u64::from(reply.lease_ms) / 2);
        running.heartbeat_at = cx.now;
        let routing = reply.routing.expect("a join is answered with the routing");
        running.routing.apply(routing);
        let node = self.node;
        let known: Vec<TargetId> = self.disks.keys().copied().collect();
        for id in known {
            let Some(target) = self.running().routing.targets.get(&id).cloned() else { continue };
            if target.chain != 0 {
                assert_eq!(target.node, node, "a target stays on its node until it is given up");
                self.open(&target, Vec::new());
            }
        }
        self.follow_routing(cx);
    }

    pub(super) fn on_heartbeat(&mut self, cx: &mut Context<'_>, sent: Duration, answer: Answer) {
        let running = self.running();
        running.reporting = false;
        match answer {
            Answer::Heartbeat(Ok(reply)) => {
                let half = Duration::from_millis(u64::from(running.lease_ms) / 2);
                running.lease_until = running.lease_until.max(sent + half);
                if running.routing.apply(reply.routing.unwrap_or_default()) {
                    self.follow_routing(cx);
                }
            }
            Answer::Heartbeat(Err(status)) if status.code == Code::NotServing => {
                // The cluster does not know this incarnation (any more).
                running.joined = false;
                running.heartbeat_at = cx.now + running.heartbeat / 4;
            }
            Answer::Heartbeat(Err(status)) => self.other_metad(cx, &status),
            _ => self.other_metad(cx, &Code::Unreachable.into()),
        }
    }

    fn other_metad(&mut self, cx: &mut Context<'_>, status: &Status) {
        let hint = status.leader_address.as_ref().and_then(|address| address.parse().ok());
        let hinted = hint.and_then(|place: Place| cx.metads.iter().position(|&m| m == place));
        let pause = Duration::from_millis(cx.rng.within(20..150));
        let running = self.running();
        running.metad = hinted.unwrap_or((running.metad + 1) % cx.metads.len());
        running.heartbeat_at = cx.now + pause;
    }
}
