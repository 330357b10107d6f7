//! Heartbeats and leases, in the memory of group 0's leader, never logged.
//!
//! The book turns what it hears into facts to propose: deaths, revivals, changed reports. It reads
//! the routing to know what the record says already, so a fact is proposed until it is in there, and
//! never twice after. A new leader begins with an empty book: nobody is declared dead before one
//! lease has passed since then.
//!
//! **Deaths that may be one event are judged together.** When a node's lease ends, when it restarts,
//! or when it leaves, others may have gone with it whose silence is not yet long enough. So a death
//! waits until every other storage node was either heard after it, or is dead too: at most one
//! heartbeat interval if the others live, at most one lease if they do not.
//!
//! It also waits while a chain would go on with silent members alone: those whose last heartbeat is
//! older than half a lease have fenced themselves and serve nobody. If they turn out to be dead too,
//! nobody served without the first, and all of them hold every acknowledged write.

mod cuts;
mod report;

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::{
    NodeId, Routing, TargetId, level_of,
    marks::{Mark, reached},
    pb,
    routing::ChainExt,
};
use pb::{NodeRole, cluster_command::Fact};

use super::{identity::known_as, space::Space};

/// Milliseconds on the leader's monotonic clock.
type Millis = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    pub lease_ms: u32,
    pub heartbeat_ms: u32,
}

/// What a heartbeat is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The lease is renewed.
    Renewed,
    /// The cluster does not know this node or this incarnation of it: it must join.
    MustJoin,
    /// Its death is being logged. A lease given now would let it serve beside its successors; once
    /// the record says that it is dead, it is heard again.
    Dying,
}

/// Whether a join may be logged now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinTurn {
    Now,
    /// The end of the node's former incarnation is to be judged first; ask again.
    AfterJudgement,
    /// A metad lives at another address under this id.
    Taken,
}

/// What the status page shows of a node beside its record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeVitals {
    pub heartbeat_age_ms: u64,
    pub load: pb::NodeLoad,
    pub disks: Vec<pb::Disk>,
    pub reports: BTreeMap<TargetId, pb::TargetReport>,
    /// Nodes that it does not reach.
    pub unreachable: BTreeSet<NodeId>,
}

#[derive(Debug)]
pub struct LeaseBook {
    times: LeaseTimes,
    began_at: Millis,
    /// The nodes that were on record at the beginning have their entries.
    followed: bool,
    nodes: BTreeMap<NodeId, Entry>,
    /// Something was heard since the last tick that it may have to act on.
    stirred: bool,
}

#[derive(Debug, Default)]
struct Entry {
    incarnation: u64,
    heard_at: Millis,
    /// When a new incarnation of the node asked to join.
    restarted_at: Option<Millis>,
    leaving_at: Option<Millis>,
    /// Its death was handed out as a fact and is not in the record yet.
    dying: bool,
    reports: BTreeMap<TargetId, pb::TargetReport>,
    disks: Vec<pb::Disk>,
    /// The newest routing that it knew when it sent its last heartbeat.
    routing_version: u64,
    /// Nodes that it does not reach.
    unreachable: BTreeSet<NodeId>,
    counters: Option<Counters>,
    load: pb::NodeLoad,
}

#[derive(Clone, Copy, Debug)]
struct Counters {
    at: Millis,
    read_bytes: u64,
    write_bytes: u64,
    read_ops: u64,
    write_ops: u64,
}

impl LeaseBook {
    /// A new leader's book.
    pub fn new(times: LeaseTimes, now: Millis) -> Self {
        assert!(times.lease_ms > 2 * times.heartbeat_ms, "a lease outlives a lost heartbeat");
        Self { times, began_at: now, followed: false, nodes: BTreeMap::new(), stirred: true }
    }

    /// A node asks to join. A restart that nobody judged yet counts as a death first.
    pub fn join(&mut self, now: Millis, routing: &Routing, request: &pb::JoinRequest) -> JoinTurn {
        self.stirred = true;
        let Some(id) = known_as(routing, request) else { return JoinTurn::Now };
        let node = &routing.nodes[&id];
        let restarted = node.alive && node.incarnation != request.incarnation;
        if restarted && node.role() == NodeRole::Storaged {
            reached(Mark::RestartJudged);
            self.entry(id).restarted_at.get_or_insert(now);
            return JoinTurn::AfterJudgement;
        }
        if restarted && node.address != request.address {
            // Two machines are configured with one id. The one that lives must not be put out, so
            // the other waits until its lease is over.
            return JoinTurn::Taken;
        }
        // Its join is about to be logged: the lease begins now, or the next tick would end it.
        let began_at = self.began_at;
        let entry = self.entry(id);
        if entry.incarnation != request.incarnation {
            *entry = Entry { incarnation: request.incarnation, ..Entry::default() };
        }
        entry.heard_at = now.max(began_at);
        entry.restarted_at = None;
        entry.leaving_at = None;
        JoinTurn::Now
    }

    pub fn heartbeat(
        &mut self,
        now: Millis,
        routing: &Routing,
        request: pb::HeartbeatRequest,
    ) -> Heard {
        let id = NodeId(request.node_id);
        let known = routing.nodes.get(&id).filter(|node| node.role() != NodeRole::RoleUnknown);
        if known.is_none_or(|node| node.incarnation != request.incarnation) {
            return Heard::MustJoin;
        }
        let entry = self.entry(id);
        if entry.dying {
            reached(Mark::DyingUnheard);
            return Heard::Dying;
        }
        if entry.restarted_at.is_some() {
            // The last word of an incarnation that was replaced.
            return Heard::MustJoin;
        }
        entry.incarnation = request.incarnation;
        entry.heard_at = entry.heard_at.max(now);
        if request.leaving {
            entry.leaving_at.get_or_insert(now);
        }
        entry.measure(now, &request);
        let before = (entry.routing_version, std::mem::take(&mut entry.unreachable));
        entry.disks = request.disks;
        entry.routing_version = request.routing_version;
        entry.unreachable = request.unreachable.into_iter().map(NodeId).collect();
        let reports = request.targets.into_iter().map(|r| (TargetId(r.target), r)).collect();
        let reported = std::mem::replace(&mut entry.reports, reports);
        let same = (before.0, &before.1) == (entry.routing_version, &entry.unreachable)
            && reported == entry.reports;
        self.stirred |= request.leaving || !same;
        Heard::Renewed
    }

    /// Facts to propose now. Called a few times in a heartbeat interval, and not again before the
    /// facts of the last call are in the routing or were refused.
    pub fn tick(&mut self, now: Millis, routing: &Routing, out: &mut Vec<Fact>) {
        self.stirred = false;
        self.follow(now, routing);
        let dead = self.deaths(now, routing);
        for id in &dead {
            self.entry(*id).dying = true;
        }
        let alive = self.revivals(now, routing);
        if !dead.is_empty() || !alive.is_empty() {
            let dead = dead.into_iter().map(|id| id.0).collect();
            out.push(Fact::NodesChanged(pb::NodesChanged { dead, alive }));
        }
        out.extend(self.ways_changed(routing).map(Fact::WaysChanged));
        for (id, entry) in &self.nodes {
            let Some(node) = routing.nodes.get(id) else { continue };
            if node.alive && node.incarnation == entry.incarnation && entry.is_staying() {
                let fact = report::changes(routing, node, &entry.reports, &entry.disks);
                out.extend(fact.map(Fact::TargetsReported));
            }
        }
    }

    /// Whether the next tick may as well come a heartbeat interval after the last one: nothing new was heard, and every
    /// living node was, in time. So long before the lease of one that dies ends this is false.
    pub fn is_calm(&self, now: Millis, routing: &Routing) -> bool {
        let late = Millis::from(self.times.heartbeat_ms) * 3 / 2;
        let living = routing.nodes.values().filter(|node| node.alive);
        !self.stirred
            && living
                .map(|node| now.saturating_sub(self.heard_at(NodeId(node.id))))
                .all(|age| age < late)
    }

    /// Whether the record does not yet say that this node, which is leaving, is gone.
    pub fn is_leaving(&self, routing: &Routing, id: NodeId) -> bool {
        let leaving = self.nodes.get(&id).is_some_and(|entry| entry.leaving_at.is_some());
        leaving && routing.nodes.get(&id).is_some_and(|node| node.alive)
    }

    pub fn vitals(&self, now: Millis, id: NodeId) -> NodeVitals {
        let heard_at = self.heard_at(id);
        let heartbeat_age_ms = now.saturating_sub(heard_at);
        let Some(entry) = self.nodes.get(&id) else {
            return NodeVitals { heartbeat_age_ms, ..NodeVitals::default() };
        };
        let load = pb::NodeLoad { node: id.0, heartbeat_age_ms, ..entry.load.clone() };
        NodeVitals {
            heartbeat_age_ms,
            load,
            disks: entry.disks.clone(),
            reports: entry.reports.clone(),
            unreachable: entry.unreachable.clone(),
        }
    }

    /// How much room the disks have, as far as this leader has heard.
    pub fn space(&self, routing: &Routing) -> Space {
        Space::new(routing, self.nodes.values().flat_map(|entry| &entry.disks))
    }

    /// Whether every storage node that may serve knows the routing of this version, or a later one. Of those that
    /// count as dead the leases are over: they join, and learn it, before they serve again.
    pub fn is_known(&self, routing: &Routing, version: u64) -> bool {
        let storages = routing.nodes.values().filter(|node| node.role() == NodeRole::Storaged);
        storages.filter(|node| node.alive).all(|node| {
            let entry = self.nodes.get(&NodeId(node.id));
            entry.is_some_and(|entry| {
                entry.incarnation == node.incarnation && entry.routing_version >= version
            })
        })
    }

    /// Whether each chain that serves has been heard to hold updates, by the routing of this version or a later one,
    /// with none left that had begun. One that does not serve answers no reads before it has ended them.
    pub fn are_held(&self, routing: &Routing, version: u64) -> bool {
        routing.chains.values().filter_map(|chain| Some((chain, chain.head()?))).all(
            |(chain, head)| {
                let entry = self.nodes.get(&NodeId(head.node));
                let report = entry.and_then(|entry| entry.reports.get(&TargetId(head.target)));
                report.is_some_and(|report| {
                    report.chain_version == chain.version && report.held_at >= version
                })
            },
        )
    }

    /// Whether every other member of the chain that serves has been heard to do so under the chain's present
    /// version, and to know the record of this target as it is now. So it was alive after that record was made.
    pub(super) fn hears_without(
        &self,
        routing: &Routing,
        chain: &pb::Chain,
        target: &pb::Target,
    ) -> bool {
        let known = target.changed_at.max(chain.changed_at);
        let is_heard = |member: &pb::ChainMember| {
            let id = NodeId(member.node);
            let (Some(node), Some(entry)) = (routing.nodes.get(&id), self.nodes.get(&id)) else {
                return false;
            };
            let is_present = node.alive
                && entry.incarnation == node.incarnation
                && entry.is_staying()
                && !entry.dying
                && entry.routing_version >= known;
            let record = routing.targets.get(&TargetId(member.target));
            let report = entry.reports.get(&TargetId(member.target));
            is_present
                && report.zip(record).is_some_and(|(report, record)| {
                    report.local_state() == pb::LocalState::UpToDate
                        && report.chain_version == chain.version
                        && report.generation == record.generation
                })
        };
        chain.serving().filter(|member| member.target != target.id).all(is_heard)
    }

    /// One entry for each node on record. One that appears has its lease from now; the others have theirs
    /// from the beginning, so that nobody counts as heard after a restart that was reported since.
    fn follow(&mut self, now: Millis, routing: &Routing) {
        self.nodes.retain(|id, _| routing.nodes.contains_key(id));
        for (id, node) in &routing.nodes {
            let heard_at = if self.followed { now } else { self.began_at };
            let fresh = || Entry { heard_at, ..Entry::default() };
            let entry = self.nodes.entry(*id).or_insert_with(fresh);
            entry.dying &= node.alive;
        }
        self.followed = true;
    }

    fn entry(&mut self, id: NodeId) -> &mut Entry {
        let began_at = self.began_at;
        self.nodes.entry(id).or_insert_with(|| Entry { heard_at: began_at, ..Entry::default() })
    }

    fn heard_at(&self, id: NodeId) -> Millis {
        self.nodes.get(&id).map_or(self.began_at, |entry| entry.heard_at)
    }

    /// The deaths to declare now: none while another node's silence is undecided.
    fn deaths(&self, now: Millis, routing: &Routing) -> BTreeSet<NodeId> {
        let living = || routing.nodes.values().filter(|node| node.alive);
        let mut dead = BTreeSet::new();
        let mut latest = None;
        for node in living() {
            let id = NodeId(node.id);
            let Some(happened_at) = self.ended_at(now, id) else { continue };
            dead.insert(id);
            if node.role() == NodeRole::Storaged {
                latest = latest.max(Some(happened_at));
            }
        }
        let undecided = living()
            .filter(|node| node.role() == NodeRole::Storaged && !dead.contains(&NodeId(node.id)))
            .any(|node| latest.is_some_and(|at| self.heard_at(NodeId(node.id)) <= at));
        let leaves_silence = !undecided && self.leaves_a_silent_chain(now, routing, &dead);
        if undecided || leaves_silence {
            reached(if undecided { Mark::DeathWaits } else { Mark::SilentChainWaits });
            // The metads hold no data: their deaths need not wait.
            dead.retain(|id| routing.nodes[id].role() != NodeRole::Storaged);
        }
        dead
    }

    /// Whether these deaths leave a chain to members that have all fenced themselves. Waiting costs it
    /// nothing, and ends when one of them is heard or their leases do.
    fn leaves_a_silent_chain(
        &self,
        now: Millis,
        routing: &Routing,
        dead: &BTreeSet<NodeId>,
    ) -> bool {
        let is_fenced = |member: &pb::ChainMember| {
            let silence = now.saturating_sub(self.heard_at(NodeId(member.node)));
            silence >= u64::from(self.times.lease_ms) / 2
        };
        let is_dead = |member: &pb::ChainMember| dead.contains(&NodeId(member.node));
        routing.chains.values().any(|chain| {
            let mut left = chain.serving().filter(|member| !is_dead(member)).peekable();
            chain.serving().any(is_dead) && left.peek().is_some() && left.all(is_fenced)
        })
    }

    /// From when the node may have been gone, if it is.
    fn ended_at(&self, now: Millis, id: NodeId) -> Option<Millis> {
        let entry = self.nodes.get(&id);
        if let Some(at) = entry.and_then(|entry| entry.restarted_at.or(entry.leaving_at)) {
            return Some(at);
        }
        let heard_at = self.heard_at(id);
        let is_over = now.saturating_sub(heard_at) >= u64::from(self.times.lease_ms);
        is_over.then_some(heard_at + u64::from(self.times.heartbeat_ms))
    }

    fn revivals(&self, now: Millis, routing: &Routing) -> Vec<u32> {
        let revived = |(id, entry): &(&NodeId, &Entry)| {
            let node = &routing.nodes[id];
            let heard = now.saturating_sub(entry.heard_at) < u64::from(self.times.lease_ms);
            let is_same = node.incarnation == entry.incarnation;
            // An entry that was only made by asking has not been heard.
            !node.alive && heard && is_same && entry.is_staying() && entry.counters.is_some()
        };
        self.nodes.iter().filter(revived).map(|(id, _)| id.0).collect()
    }
}

impl Entry {
    fn is_staying(&self) -> bool {
        self.restarted_at.is_none() && self.leaving_at.is_none()
    }

    /// Rates between this heartbeat and the last.
    fn measure(&mut self, now: Millis, request: &pb::HeartbeatRequest) {
        self.load.certificate_expires_s = request.certificate_expires_s;
        self.load.level = level_of(request.level);
        self.load.release.clone_from(&request.release);
        self.load.leaf.clone_from(&request.leaf);
        let counters = Counters {
            at: now,
            read_bytes: request.read_bytes,
            write_bytes: request.write_bytes,
            read_ops: request.read_ops,
            write_ops: request.write_ops,
        };
        if let Some(last) = self.counters {
            let elapsed = now.saturating_sub(last.at);
            if elapsed == 0 {
                return;
            }
            let rate =
                |now: u64, last: u64| now.saturating_sub(last).saturating_mul(1000) / elapsed;
            self.load = pb::NodeLoad {
                read_bytes_per_s: rate(counters.read_bytes, last.read_bytes),
                write_bytes_per_s: rate(counters.write_bytes, last.write_bytes),
                read_ops_per_s: rate(counters.read_ops, last.read_ops),
                write_ops_per_s: rate(counters.write_ops, last.write_ops),
                ..self.load.clone()
            };
        }
        self.counters = Some(counters);
    }
}

#[cfg(test)]
mod tests;
