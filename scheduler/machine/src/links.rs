//! What goes over the network ports of nodes, as their agents tell: how busy each is, which are hot, and which go
//! down again and again.
//!
//! The leader keeps it in mind; the next one learns it anew. Of nodes that take no jobs, such as storage servers, only
//! that is known. A port flaps that went down [`limits::FLAPS`] times in
//! [`limits::FLAP_WINDOW_MS`]: its node is cordoned, and the whole leaf if half of its nodes are so at once, since then
//! the switch or its cables are the likelier reason. Who resumes a node knows better: the downs until then count no
//! more.

use std::collections::{BTreeMap, VecDeque};

use ff2_proto::pb;
use ff2_sched_core::{Event, NodeState, Scope};
use ff2_topology::NodeId;

use crate::{limits, state::State, watch::Told};

/// See the module. Times are of the leader's monotonic clock, ms, but those of readings.
#[derive(Clone, Debug, Default)]
pub struct Links {
    nodes: BTreeMap<NodeId, Ports>,
    /// Nodes that take no jobs, by name.
    watched: BTreeMap<String, Watched>,
}

/// By name.
type Ports = BTreeMap<String, Port>;

#[derive(Clone, Debug)]
struct Watched {
    heard_ms: u64,
    node: pb::AgentNode,
    ports: Ports,
}

/// One port, with how much its counters grew.
#[derive(Clone, Debug, Default)]
pub struct Port {
    last: pb::LinkReading,
    read_ms: u64,
    /// Bytes a second, between the last two readings.
    pub received_per_s: u64,
    pub sent_per_s: u64,
    busy_since: Option<u64>,
    /// When it went down how often, and had how many errors.
    faults: VecDeque<Fault>,
    /// Downs of the window that are not held against it any more.
    forgiven: u64,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    at_ms: u64,
    downs: u64,
    errors: u64,
}

impl Links {
    pub fn hear(&mut self, now_ms: u64, node: NodeId, request: &pb::AgentSyncRequest) {
        take(self.nodes.entry(node).or_default(), now_ms, request);
    }

    /// Of a node that takes no jobs. What is silent for long is forgotten. False: there are too many already.
    pub fn watch(
        &mut self,
        now_ms: u64,
        node: &pb::AgentNode,
        request: &pb::AgentSyncRequest,
    ) -> bool {
        self.watched.retain(|_, of| now_ms.saturating_sub(of.heard_ms) < limits::FLAP_WINDOW_MS);
        let is_known = self.watched.contains_key(&node.name);
        if !is_known && self.watched.len() >= limits::WATCHED_MAX {
            return false;
        }
        let new = || Watched { heard_ms: now_ms, node: node.clone(), ports: Ports::new() };
        let of = self.watched.entry(node.name.clone()).or_insert_with(new);
        (of.heard_ms, of.node) = (now_ms, node.clone());
        take(&mut of.ports, now_ms, request);
        true
    }

    /// All ports of all nodes that take no jobs.
    pub fn watched(&self) -> impl Iterator<Item = (&pb::AgentNode, &Port)> {
        self.watched.values().flat_map(|of| of.ports.values().map(move |port| (&of.node, port)))
    }

    /// All ports of all nodes that take jobs.
    pub fn ports(&self) -> impl Iterator<Item = (NodeId, &Port)> {
        self.nodes.iter().flat_map(|(node, ports)| ports.values().map(move |port| (*node, port)))
    }

    /// Which nodes are to get nothing new, and why.
    pub fn facts(&mut self, now_ms: u64, state: &State) -> Vec<Told> {
        let mut flapping = BTreeMap::new();
        for (node, ports) in &mut self.nodes {
            if state.scheduler().node_state(*node) != Some(NodeState::Up) {
                // Whoever says that it is up again has looked at it.
                ports.values_mut().for_each(|port| port.forgive(now_ms));
                continue;
            }
            let worst = ports.values().max_by_key(|port| port.counted(now_ms));
            if let Some(port) = worst.filter(|port| port.counted(now_ms) >= limits::FLAPS) {
                flapping.insert(*node, (port.last.name.clone(), port.counted(now_ms)));
            }
        }
        let minutes = limits::FLAP_WINDOW_MS / 60_000;
        let mut told = Vec::new();
        for (leaf, _) in state.topology().leaves() {
            let at: Vec<NodeId> = state.topology().at_leaf(leaf).collect();
            let bad = at.iter().filter(|node| flapping.contains_key(node)).count();
            if bad < 2 || bad * 2 < at.len() {
                continue;
            }
            let (of, name) = (at.len(), state.place(at[0]).1);
            let note = format!(
                "ports of {bad} of the {of} nodes at leaf {name} went down again and again within {minutes} min: its \
                 switch or its cables? `ff2ctl node resume leaf:{name}` when that is mended"
            );
            told.push(cordon(Scope::Leaf(leaf), note));
            at.iter().for_each(|node| drop(flapping.remove(node)));
        }
        told.extend(flapping.into_iter().map(|(node, (port, downs))| {
            let name = state.name(node);
            let note = format!(
                "its port {port} went down {downs} times within {minutes} min: `ff2ctl node resume {name}` when that \
                 is mended"
            );
            cordon(Scope::Node(node), note)
        }));
        told
    }
}

fn take(ports: &mut Ports, now_ms: u64, request: &pb::AgentSyncRequest) {
    let heard = &request.links[..request.links.len().min(limits::LINKS_MAX)];
    ports.retain(|name, _| heard.iter().any(|link| link.name == *name));
    for link in heard {
        match ports.get_mut(&link.name) {
            Some(port) => port.take(now_ms, request.links_at_ms, link),
            None => {
                let read_ms = request.links_at_ms;
                let port = Port { last: link.clone(), read_ms, ..Port::default() };
                ports.insert(link.name.clone(), port);
            }
        }
    }
}

fn cordon(scope: Scope, note: String) -> Told {
    Told { event: Event::Node { scope, state: NodeState::Cordoned }, note }
}

impl Port {
    fn take(&mut self, now_ms: u64, read_ms: u64, link: &pb::LinkReading) {
        let elapsed_ms = read_ms.saturating_sub(self.read_ms);
        let grown = |now: u64, before: u64| now.checked_sub(before);
        let growth = grown(link.received_bytes, self.last.received_bytes)
            .zip(grown(link.sent_bytes, self.last.sent_bytes))
            .zip(grown(link.downs, self.last.downs))
            .zip(grown(link.errors, self.last.errors));
        let Some((((received, sent), downs), errors)) = growth.filter(|_| read_ms >= self.read_ms)
        else {
            // The driver or the machine began anew: so does the counting.
            let faults = std::mem::take(&mut self.faults);
            let forgiven = self.forgiven;
            *self = Self { last: link.clone(), read_ms, faults, forgiven, ..Self::default() };
            return;
        };
        if downs + errors > 0 {
            self.faults.push_back(Fault { at_ms: now_ms, downs, errors });
        }
        while self.faults.len() > limits::FAULTS_KEPT
            || self.faults.front().is_some_and(|fault| !is_recent(now_ms, fault))
        {
            let gone = self.faults.pop_front().expect("there is one");
            self.forgiven = self.forgiven.saturating_sub(gone.downs);
        }
        self.last.downs = link.downs;
        self.last.errors = link.errors;
        // Over a shorter time the figure says little; the bytes count in the next one.
        if elapsed_ms < limits::RATE_STEP_MS {
            self.last.up = link.up;
            return;
        }
        let per_s = |bytes: u64| (u128::from(bytes) * 1_000 / u128::from(elapsed_ms)) as u64;
        (self.received_per_s, self.sent_per_s) = (per_s(received), per_s(sent));
        (self.last, self.read_ms) = (link.clone(), read_ms);
        let is_busy = self.use_permille() >= limits::HOT_PERMILLE;
        self.busy_since = is_busy.then(|| self.busy_since.unwrap_or(now_ms));
    }

    pub fn reading(&self) -> &pb::LinkReading {
        &self.last
    }

    /// Thousandths of its speed that the busier direction has; 0 where no speed is known.
    pub fn use_permille(&self) -> u32 {
        let busier = u128::from(self.received_per_s.max(self.sent_per_s)) * 8;
        let use_ = (busier * 1_000).checked_div(self.last.bits_per_s.into()).unwrap_or(0);
        u32::try_from(use_).unwrap_or(u32::MAX)
    }

    /// It has been as busy as it can be for a while.
    pub fn is_hot(&self, now_ms: u64) -> bool {
        self.busy_since.is_some_and(|since| now_ms.saturating_sub(since) >= limits::HOT_MS)
    }

    pub fn flaps(&self, now_ms: u64) -> bool {
        self.faults(now_ms).0 >= limits::FLAPS
    }

    /// How often it went down, and had errors, in the window.
    pub fn faults(&self, now_ms: u64) -> (u64, u64) {
        let recent = self.faults.iter().filter(|fault| is_recent(now_ms, fault));
        recent.fold((0, 0), |(downs, errors), fault| (downs + fault.downs, errors + fault.errors))
    }

    /// Downs that are held against it.
    fn counted(&self, now_ms: u64) -> u64 {
        self.faults(now_ms).0.saturating_sub(self.forgiven)
    }

    fn forgive(&mut self, now_ms: u64) {
        self.forgiven = self.faults(now_ms).0;
    }
}

fn is_recent(now_ms: u64, fault: &Fault) -> bool {
    now_ms.saturating_sub(fault.at_ms) < limits::FLAP_WINDOW_MS
}

#[cfg(test)]
mod tests;
