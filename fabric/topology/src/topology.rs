//! The checked network: its parts by number, and how near they are.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::description::{Description, Role};

macro_rules! number {
    ($name:ident, $what:literal) => {
        #[doc = concat!("The number of ", $what, " in one [`Topology`], from 0.")]
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub u32);

        impl $name {
            fn at(index: usize) -> Self {
                Self(u32::try_from(index).expect("a network has fewer parts"))
            }

            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

number!(ZoneId, "a zone");
number!(PodId, "a pod");
number!(LeafId, "a leaf switch");
number!(NodeId, "a node");

/// A network in which every port leads to a leaf switch that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    zones: Vec<String>,
    pods: Vec<Pod>,
    leaves: Vec<Leaf>,
    nodes: Vec<Node>,
    /// The nodes of each leaf, in their order.
    at_leaf: Vec<Vec<NodeId>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub zone: ZoneId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub name: String,
    pub pod: PodId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub role: Role,
    /// The leaf of each port and its speed, Gbit/s.
    pub ports: Vec<(LeafId, u32)>,
}

impl Node {
    pub fn gpus(&self) -> u32 {
        match self.role {
            Role::Compute { gpus } => gpus,
            Role::Storage | Role::Management => 0,
        }
    }
}

/// The smallest part of the network that two nodes share: what lies between them grows from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proximity {
    Node,
    Leaf,
    Pod,
    Zone,
    /// No zone: what goes between them passes the few links between zones.
    Cluster,
}

/// Why a description is of no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("there are two {0} named {1:?}")]
    Twice(&'static str, String),
    #[error("node {node:?} has a port at leaf {leaf:?}, which is not described")]
    NoSuchLeaf { node: String, leaf: String },
    #[error("node {0:?} has no port")]
    NoPort(String),
    #[error("node {0:?} has a port of 0 Gbit/s")]
    NoSpeed(String),
    #[error("pod {pod:?} is in zone {first:?} and in zone {second:?}")]
    PodOfTwoZones { pod: String, first: String, second: String },
}

impl Topology {
    /// Zones, pods, leaves and nodes get numbers in the order in which the description names them.
    pub fn new(description: &Description) -> Result<Self, Problem> {
        let (mut zones, mut pods) = (Names::default(), Names::default());
        let mut topology = Self {
            zones: Vec::new(),
            pods: Vec::new(),
            leaves: Vec::new(),
            nodes: Vec::new(),
            at_leaf: vec![Vec::new(); description.leaves.len()],
        };
        let mut leaves = BTreeMap::new();
        for described in &description.leaves {
            let zone = ZoneId::at(zones.number(&described.zone));
            // A zone without pods is one, whose name no pod has.
            let is_zone = described.pod.is_empty();
            let place = (is_zone, if is_zone { &described.zone } else { &described.pod }.clone());
            let pod = PodId::at(pods.number(&place));
            match topology.pods.get(pod.index()) {
                None => topology.pods.push(Pod { name: place.1, zone }),
                Some(known) if known.zone == zone => {}
                Some(known) => {
                    return Err(Problem::PodOfTwoZones {
                        pod: place.1,
                        first: zones.list[known.zone.index()].clone(),
                        second: described.zone.clone(),
                    });
                }
            }
            let leaf = LeafId::at(topology.leaves.len());
            if leaves.insert(described.name.as_str(), leaf).is_some() {
                return Err(Problem::Twice("leaves", described.name.clone()));
            }
            topology.leaves.push(Leaf { name: described.name.clone(), pod });
        }
        topology.zones = zones.list;
        let mut names = BTreeSet::new();
        for described in &description.nodes {
            let name = &described.name;
            if !names.insert(name) {
                return Err(Problem::Twice("nodes", name.clone()));
            }
            let mut ports = Vec::new();
            for port in &described.ports {
                let unknown =
                    || Problem::NoSuchLeaf { node: name.clone(), leaf: port.leaf.clone() };
                let leaf = leaves.get(port.leaf.as_str()).ok_or_else(unknown)?;
                if port.gbit_per_s == 0 {
                    return Err(Problem::NoSpeed(name.clone()));
                }
                ports.push((*leaf, port.gbit_per_s));
            }
            if ports.is_empty() {
                return Err(Problem::NoPort(name.clone()));
            }
            let id = NodeId::at(topology.nodes.len());
            for leaf in ports.iter().map(|(leaf, _)| leaf).collect::<BTreeSet<_>>() {
                topology.at_leaf[leaf.index()].push(id);
            }
            topology.nodes.push(Node { name: name.clone(), role: described.role, ports });
        }
        Ok(topology)
    }

    pub fn zones(&self) -> impl ExactSizeIterator<Item = (ZoneId, &str)> {
        self.zones.iter().enumerate().map(|(at, name)| (ZoneId::at(at), name.as_str()))
    }

    pub fn pods(&self) -> impl ExactSizeIterator<Item = (PodId, &Pod)> {
        self.pods.iter().enumerate().map(|(at, pod)| (PodId::at(at), pod))
    }

    pub fn leaves(&self) -> impl ExactSizeIterator<Item = (LeafId, &Leaf)> {
        self.leaves.iter().enumerate().map(|(at, leaf)| (LeafId::at(at), leaf))
    }

    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(at, node)| (NodeId::at(at), node))
    }

    /// # Panics
    /// If the number is of another topology.
    pub fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.index()]
    }

    /// The nodes with a port at a leaf, in the order of their numbers.
    pub fn at_leaf(&self, leaf: LeafId) -> impl ExactSizeIterator<Item = NodeId> {
        self.at_leaf[leaf.index()].iter().copied()
    }

    pub fn pod_of(&self, leaf: LeafId) -> PodId {
        self.leaves[leaf.index()].pod
    }

    pub fn zone_of(&self, leaf: LeafId) -> ZoneId {
        self.pods[self.pod_of(leaf).index()].zone
    }

    /// By the nearest of their ports.
    pub fn proximity(&self, one: NodeId, other: NodeId) -> Proximity {
        if one == other {
            return Proximity::Node;
        }
        let between = |a: LeafId, b: LeafId| {
            if a == b {
                Proximity::Leaf
            } else if self.pod_of(a) == self.pod_of(b) {
                Proximity::Pod
            } else if self.zone_of(a) == self.zone_of(b) {
                Proximity::Zone
            } else {
                Proximity::Cluster
            }
        };
        let ports = |node: NodeId| self.node(node).ports.iter().map(|(leaf, _)| *leaf);
        let pairs = ports(one).flat_map(|a| ports(other).map(move |b| (a, b)));
        pairs.map(|(a, b)| between(a, b)).min().unwrap_or(Proximity::Cluster)
    }
}

/// Numbers of names in the order in which they are met.
#[derive(Debug)]
struct Names<T> {
    numbers: BTreeMap<T, usize>,
    list: Vec<T>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { numbers: BTreeMap::new(), list: Vec::new() }
    }
}

impl<T: Clone + Ord> Names<T> {
    fn number(&mut self, name: &T) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        self.numbers.insert(name.clone(), self.list.len());
        self.list.push(name.clone());
        self.list.len() - 1
    }
}

#[cfg(test)]
mod tests;
