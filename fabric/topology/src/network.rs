//! The wired network: switches, hosts, and the cables between their ports.
//!
//! It is finer than a [`Description`](crate::Description), which only knows at which leaf a node hangs and can be
//! derived from it ([`Network::describe`]). Routing and the flow simulator work on this one.

mod check;
mod layers;
pub mod svg;
mod zones;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use check::Fault;

use crate::{
    Role,
    description::{Description, LeafSwitch, Port, Server},
};

/// Switches, hosts and links in the order in which they were described.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub switches: Vec<Switch>,
    pub hosts: Vec<Host>,
    pub links: Vec<Link>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    pub name: String,
    /// Empty: between zones.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Planes are networks beside each other: a host has a port in each.
    #[serde(default)]
    pub plane: u32,
    /// Ports are numbered from 1 to this.
    pub ports: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    pub name: String,
    pub role: Role,
    /// Network ports (NICs of one port each), numbered from 1 to this.
    pub nics: u32,
}

/// A cable. Its two ends are equal; a generated one has the end nearer to hosts first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub a: End,
    pub b: End,
    pub gbit_per_s: u32,
}

/// A port of a switch or host, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    pub node: String,
    pub port: u32,
}

impl End {
    pub fn new(node: impl Into<String>, port: u32) -> Self {
        Self { node: node.into(), port }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.node, self.port)
    }
}

impl Network {
    /// The layer of each switch, in their order: 1 with hosts at it, and one more for each link away from those.
    /// 0 if no host can be reached.
    pub fn layers(&self) -> Vec<u32> {
        layers::of(self)
    }

    /// Ports that point away from the spines: those of hosts, and free ones, of each leaf layer by zone.
    pub fn host_ports(&self) -> BTreeMap<&str, u32> {
        let layers = self.layers();
        let of = self.switch_numbers();
        let mut uplinks = vec![0; self.switches.len()];
        for link in &self.links {
            if let (Some(&a), Some(&b)) =
                (of.get(link.a.node.as_str()), of.get(link.b.node.as_str()))
            {
                // To a border leaf of layer 3 a spine is what it is to any other leaf.
                for (near, far) in [(a, b), (b, a)] {
                    uplinks[near] += u32::from(layers[far] == 2);
                }
            }
        }
        let mut ports = BTreeMap::new();
        for (at, switch) in self.switches.iter().enumerate() {
            if layers[at] == 1 || (layers[at] == 3 && !switch.zone.is_empty()) {
                *ports.entry(switch.zone.as_str()).or_default() +=
                    switch.ports.saturating_sub(uplinks[at]);
            }
        }
        ports
    }

    /// What the scheduler needs to know: leaves by zone, and nodes at them. With several planes, leaves of the first
    /// plane stand for all: a node is as near by one as by another.
    pub fn describe(&self) -> Description {
        let numbers = self.switch_numbers();
        let layers = self.layers();
        let planes_first = |at: usize| layers[at] == 1 && self.switches[at].plane == 0;
        let leaves = (0..self.switches.len()).filter(|at| planes_first(*at)).map(|at| LeafSwitch {
            name: self.switches[at].name.clone(),
            zone: self.switches[at].zone.clone(),
            pod: String::new(),
        });
        let mut ports: BTreeMap<&str, Vec<(u32, Port)>> = BTreeMap::new();
        for link in &self.links {
            for (host, leaf) in [(&link.a, &link.b), (&link.b, &link.a)] {
                let at = numbers.get(leaf.node.as_str());
                if at.is_some_and(|at| planes_first(*at)) {
                    let port = Port { leaf: leaf.node.clone(), gbit_per_s: link.gbit_per_s };
                    ports.entry(&host.node).or_default().push((host.port, port));
                }
            }
        }
        let nodes = self.hosts.iter().map(|host| {
            let mut ports = ports.remove(host.name.as_str()).unwrap_or_default();
            ports.sort_by_key(|(number, _)| *number);
            let ports = ports.into_iter().map(|(_, port)| port).collect();
            Server { name: host.name.clone(), role: host.role, ports }
        });
        Description { nodes: nodes.collect(), leaves: leaves.collect() }
    }

    /// The place of each switch in [`Self::switches`].
    pub fn switch_numbers(&self) -> BTreeMap<&str, usize> {
        self.switches.iter().enumerate().map(|(at, switch)| (switch.name.as_str(), at)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
