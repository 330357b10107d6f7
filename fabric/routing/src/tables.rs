//! Linear forwarding tables: built, repaired, compared and followed.

use std::collections::{BTreeMap, BTreeSet};

use ff2_topology::Role;
use serde::Serialize;

use crate::graph::{Channel, Graph, Peer};

/// How destinations are dealt out to equally short ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// By the destination's number modulo the number of ways (Zahavi, "D-Mod-K routing providing non-blocking
    /// traffic for shift permutations on real life fat trees", 2010).
    DModK,
    /// As d-mod-k, but within each leaf the remainders are dealt out by role: storage nodes get all remainders
    /// equally often over the leaves, even where they are always plugged into the same ports.
    Balanced,
}

/// The port of each switch to each endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// By switch and endpoint; 0: there is no way.
    pub(crate) ports: Vec<Vec<u32>>,
}

/// An entry that two tables have differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub switch: usize,
    pub endpoint: usize,
    pub from: u32,
    pub to: u32,
}

/// Where a packet ends that does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("switch {0} has no way to the destination")]
    NoWay(usize),
    #[error("port {1} of switch {0} leads nowhere or to another host")]
    Astray(usize, u32),
    #[error("the way comes back to switch {0}")]
    Loop(usize),
}

impl Tables {
    pub fn build(graph: &Graph, policy: Policy) -> Self {
        let none = BTreeSet::new();
        let keys = keys(graph, policy);
        let mut tables = Self { ports: vec![vec![0; graph.endpoints.len()]; graph.ports.len()] };
        let strides = strides(graph);
        for (leaf, members) in by_leaf(graph) {
            let candidates = graph.candidates(leaf, &none);
            for member in members {
                for (at, ways) in candidates.iter().enumerate() {
                    if let Some(last) = ways.len().checked_sub(1) {
                        // Down a bundle of cables by the remainder, as up from the leaf.
                        let up = is_up(graph, at, ways[last]);
                        let stride = if up { strides[graph.ranks[at].0 as usize] } else { 1 };
                        tables.ports[at][member] = ways[keys[member] / stride % ways.len()];
                    }
                }
                tables.ports[leaf][member] = graph.endpoints[member].port;
            }
        }
        tables
    }

    /// Tables for the network without the `failed` links, with as few changed entries as can be: one changes only if
    /// its port is on no shortest legal way any more, and goes to the port with the fewest entries then.
    pub fn repair(&self, graph: &Graph, failed: &BTreeSet<usize>) -> Self {
        let mut tables = self.clone();
        let mut used: Vec<BTreeMap<u32, usize>> = vec![BTreeMap::new(); graph.ports.len()];
        for (used, row) in used.iter_mut().zip(&self.ports) {
            for port in row {
                *used.entry(*port).or_default() += 1;
            }
        }
        for (leaf, members) in by_leaf(graph) {
            let candidates = graph.candidates(leaf, failed);
            for member in members {
                for (at, ways) in candidates.iter().enumerate() {
                    let now = &mut tables.ports[at][member];
                    if at == leaf {
                        let plugged = !failed.contains(&(graph.endpoints[member].sends / 2));
                        *now = if plugged { graph.endpoints[member].port } else { 0 };
                    } else if !ways.contains(now) {
                        let count = |port: &u32| used[at].get(port).copied().unwrap_or(0);
                        let least = ways.iter().copied().min_by_key(|port| (count(port), *port));
                        let next = least.unwrap_or(0);
                        if let Some(count) = used[at].get_mut(now) {
                            *count -= 1;
                        }
                        *used[at].entry(next).or_default() += 1;
                        *now = next;
                    }
                }
            }
        }
        tables
    }

    /// The entries of `self` that `new` has differently.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (switch, (old, new)) in self.ports.iter().zip(&new.ports).enumerate() {
            for (endpoint, (&from, &to)) in old.iter().zip(new).enumerate() {
                if from != to {
                    changes.push(Change { switch, endpoint, from, to });
                }
            }
        }
        changes
    }

    /// The port of a switch to an endpoint.
    pub fn port(&self, switch: usize, endpoint: usize) -> Option<u32> {
        Some(self.ports[switch][endpoint]).filter(|port| *port != 0)
    }

    /// All channels from one endpoint to another, the hosts' own among them.
    pub fn path(&self, graph: &Graph, from: usize, to: usize) -> Result<Vec<Channel>, Lost> {
        let mut channels = vec![graph.endpoints[from].sends];
        let mut at = graph.endpoints[from].switch;
        for _ in 0..=graph.ports.len() {
            let port = self.port(at, to).ok_or(Lost::NoWay(at))?;
            let (peer, channel) = graph.ports[at].get(&port).ok_or(Lost::Astray(at, port))?;
            channels.push(*channel);
            match *peer {
                Peer::Switch(next) => at = next,
                Peer::Endpoint(end) if end == to => return Ok(channels),
                Peer::Endpoint(_) => return Err(Lost::Astray(at, port)),
            }
        }
        Err(Lost::Loop(at))
    }
}

fn by_leaf(graph: &Graph) -> BTreeMap<usize, Vec<usize>> {
    let mut leaves: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, endpoint) in graph.endpoints.iter().enumerate() {
        leaves.entry(endpoint.switch).or_default().push(number);
    }
    leaves
}

fn is_up(graph: &Graph, switch: usize, port: u32) -> bool {
    matches!(graph.ports[switch].get(&port), Some((Peer::Switch(next), _)) if graph.ranks[*next] > graph.ranks[switch])
}

fn ups(graph: &Graph, switch: usize) -> usize {
    graph.ports[switch].keys().filter(|port| is_up(graph, switch, **port)).count()
}

/// By what a destination's number is divided at each layer, so that layers do not all look at the same digit.
fn strides(graph: &Graph) -> Vec<usize> {
    let highest = graph.ranks.iter().map(|(layer, _)| *layer).max().unwrap_or(0);
    let mut strides = vec![1; highest as usize + 1];
    for layer in 1..strides.len() - usize::from(strides.len() > 1) {
        let at_layer = (0..graph.ports.len()).filter(|at| graph.ranks[*at].0 as usize == layer);
        let ways = at_layer.map(|at| ups(graph, at)).max().unwrap_or(1).max(1);
        strides[layer + 1] = strides[layer] * ways;
    }
    strides
}

/// The number by which each endpoint is dealt out.
fn keys(graph: &Graph, policy: Policy) -> Vec<usize> {
    if policy == Policy::DModK {
        return (0..graph.endpoints.len()).collect();
    }
    let mut keys = vec![0; graph.endpoints.len()];
    // Where each role goes on in the next leaf.
    let mut next = [0_usize; 3];
    for (ordinal, (leaf, members)) in by_leaf(graph).into_iter().enumerate() {
        let ways = ups(graph, leaf).max(1);
        let mut taken = vec![0_usize; ways];
        let role = |member: &usize| match graph.endpoints[*member].role {
            Role::Storage => 0,
            Role::Management => 1,
            Role::Compute { .. } => 2,
        };
        let mut ordered = members;
        ordered.sort_by_key(role);
        for (dealt, member) in ordered.into_iter().enumerate() {
            let role = role(&member);
            // Each remainder once before any twice.
            while taken[next[role] % ways] > dealt / ways {
                next[role] += 1;
            }
            let remainder = next[role] % ways;
            next[role] += 1;
            taken[remainder] += 1;
            keys[member] = ordinal * ways + remainder;
        }
    }
    keys
}
