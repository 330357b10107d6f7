//! The wired fat tree by numbers: the network of Fire-Flyer 2 (arXiv 2408.14158, III-B) by default.

use crate::{
    Role,
    network::{End, Host, Link, Network, Switch},
};

/// Zones of two layers each, in as many planes as a host has ports for. Zones meet at inter-zone switches: the last
/// leaf of each zone has no hosts then but cables to those (a border leaf), so that every path still goes up and
/// then down. The paper does not say how its zones are joined; this uses exactly the host ports it leaves free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    pub zones: u32,
    pub planes: u32,
    /// Leaf and spine switches of each zone and plane.
    pub leaves: u32,
    pub spines: u32,
    /// Ports of every switch.
    pub ports: u32,
    /// Of these, how many of a leaf lead to spines.
    pub uplinks: u32,
    /// Inter-zone switches of each plane.
    pub between: u32,
    /// Compute nodes of each zone; all ports that storage leaves if not given.
    pub compute: Option<u32>,
    pub gpus: u32,
    /// Storage nodes of the cluster, each with a port in every zone.
    pub storage: u32,
    /// Hosts at each leaf where the tree is ragged; otherwise as many as there are ports.
    pub ragged: Vec<u32>,
    pub gbit_per_s: u32,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            zones: 2,
            planes: 1,
            leaves: 40,
            spines: 20,
            ports: 40,
            uplinks: 20,
            between: 2,
            compute: None,
            gpus: 8,
            storage: 180,
            ragged: Vec::new(),
            gbit_per_s: 200,
        }
    }
}

/// Numbers of which no tree can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    #[error(
        "{uplinks} uplinks of a leaf cannot be dealt evenly to {spines} spines: take a multiple"
    )]
    Uneven { uplinks: u32, spines: u32 },
    #[error("a {what} needs {needed} ports and has {ports}: take larger switches or fewer of them")]
    Ports { what: &'static str, needed: u64, ports: u32 },
    #[error(
        "{needed} hosts need a port in a zone that has {ports}: make zones larger, or more of them"
    )]
    Hosts { needed: u64, ports: u64 },
    #[error("{given} numbers of hosts for {leaves} leaves with hosts")]
    Ragged { given: usize, leaves: u32 },
}

impl Tree {
    pub fn build(&self) -> Result<Network, Impossible> {
        self.is_possible()?;
        let mut network = Network::default();
        for zone in 0..self.zones {
            for plane in 0..self.planes {
                self.zone(zone, plane, &mut network);
            }
        }
        if self.has_border() {
            for plane in 0..self.planes {
                self.join(plane, &mut network);
            }
        }
        self.hosts(&mut network)?;
        Ok(network)
    }

    fn is_possible(&self) -> Result<(), Impossible> {
        let positive = [
            ("zones", self.zones),
            ("planes", self.planes),
            ("leaves", self.leaves),
            ("spines", self.spines),
            ("uplinks", self.uplinks),
        ];
        if let Some((what, _)) = positive.iter().find(|(_, number)| *number == 0) {
            return Err(Impossible::Zero(what));
        }
        if !self.uplinks.is_multiple_of(self.spines) {
            return Err(Impossible::Uneven { uplinks: self.uplinks, spines: self.spines });
        }
        let fits = |what, needed: u64| match needed <= u64::from(self.ports) {
            true => Ok(()),
            false => Err(Impossible::Ports { what, needed, ports: self.ports }),
        };
        let most = self.ragged.iter().max().copied().unwrap_or(0);
        fits("leaf", u64::from(self.uplinks) + u64::from(most))?;
        fits("spine", u64::from(self.leaves) * u64::from(self.uplinks / self.spines))?;
        if self.has_border() {
            let to_zone = u64::from(self.down() / self.between);
            fits("inter-zone switch", u64::from(self.zones) * to_zone)?;
        }
        if !self.ragged.is_empty() && self.ragged.len() != self.with_hosts() as usize {
            return Err(Impossible::Ragged { given: self.ragged.len(), leaves: self.with_hosts() });
        }
        Ok(())
    }

    fn has_border(&self) -> bool {
        self.zones > 1 && self.between > 0
    }

    fn with_hosts(&self) -> u32 {
        self.leaves - u32::from(self.has_border())
    }

    fn down(&self) -> u32 {
        self.ports - self.uplinks
    }

    fn name(&self, zone: u32, plane: u32, kind: &str, number: u32) -> String {
        let plane = if self.planes > 1 { format!("p{plane}-") } else { String::new() };
        format!("z{zone}-{plane}{kind}{number:02}")
    }

    fn zone(&self, zone: u32, plane: u32, network: &mut Network) {
        for (kind, count) in [("leaf", self.leaves), ("spine", self.spines)] {
            network.switches.extend((0..count).map(|number| Switch {
                name: self.name(zone, plane, kind, number),
                zone: format!("z{zone}"),
                plane,
                ports: self.ports,
            }));
        }
        let parallel = self.uplinks / self.spines;
        for leaf in 0..self.leaves {
            for spine in 0..self.spines {
                for cable in 0..parallel {
                    let up = self.down() + spine * parallel + cable + 1;
                    let a = End::new(self.name(zone, plane, "leaf", leaf), up);
                    let below = leaf * parallel + cable + 1;
                    let b = End::new(self.name(zone, plane, "spine", spine), below);
                    network.links.push(Link { a, b, gbit_per_s: self.gbit_per_s });
                }
            }
        }
    }

    fn join(&self, plane: u32, network: &mut Network) {
        let to_zone = self.down() / self.between;
        for number in 0..self.between {
            let suffix = if self.planes > 1 { format!("p{plane}-") } else { String::new() };
            let name = format!("{suffix}between{number:02}");
            let switch =
                Switch { name: name.clone(), zone: String::new(), plane, ports: self.ports };
            network.switches.push(switch);
            for zone in 0..self.zones {
                let border = self.name(zone, plane, "leaf", self.leaves - 1);
                for cable in 0..to_zone {
                    let a = End::new(border.as_str(), number * to_zone + cable + 1);
                    let b = End::new(name.as_str(), zone * to_zone + cable + 1);
                    network.links.push(Link { a, b, gbit_per_s: self.gbit_per_s });
                }
            }
        }
    }

    /// Storage is dealt out to the leaves one by one, compute nodes fill them in the order of their names: so
    /// neighbours by name share a leaf, and what storage sends comes from all leaves (VI-A2 of the paper).
    fn hosts(&self, network: &mut Network) -> Result<(), Impossible> {
        let leaves = self.with_hosts();
        let free: Vec<u32> = match self.ragged.is_empty() {
            true => vec![self.down(); leaves as usize],
            false => self.ragged.clone(),
        };
        let ports: u64 = free.iter().map(|free| u64::from(*free)).sum();
        let wanted = u64::from(self.storage) + u64::from(self.compute.unwrap_or(0));
        if wanted > ports {
            return Err(Impossible::Hosts { needed: wanted, ports });
        }
        let storage = deal(&free, self.storage);
        let rest: Vec<u32> = free.iter().zip(&storage).map(|(free, taken)| free - taken).collect();
        let compute = match self.compute {
            Some(count) => deal(&rest, count),
            None => rest,
        };
        let compute_total: u32 = compute.iter().sum();
        let mut links = Vec::new();
        let mut plug = |host: &str, zone: u32, leaf: usize, port: u32, nic: u32| {
            for plane in 0..self.planes {
                let a = End::new(host, nic * self.planes + plane + 1);
                let leaf = u32::try_from(leaf).expect("leaves are counted in 32 bits");
                let b = End::new(self.name(zone, plane, "leaf", leaf), port + 1);
                links.push(Link { a, b, gbit_per_s: self.gbit_per_s });
            }
        };
        for zone in 0..self.zones {
            let mut number = 0;
            for (leaf, count) in compute.iter().enumerate() {
                for port in 0..*count {
                    let name = format!("z{zone}-gpu{number:04}");
                    plug(&name, zone, leaf, port, 0);
                    let role = Role::Compute { gpus: self.gpus };
                    network.hosts.push(Host { name, role, nics: self.planes });
                    number += 1;
                }
            }
            debug_assert_eq!(number, compute_total);
        }
        let mut number = 0;
        let deepest = storage.iter().max().copied().unwrap_or(0);
        for round in 0..deepest {
            for (leaf, count) in storage.iter().enumerate() {
                if round < *count {
                    let name = format!("storage{number:03}");
                    for zone in 0..self.zones {
                        plug(&name, zone, leaf, compute[leaf] + round, zone);
                    }
                    let nics = self.zones * self.planes;
                    network.hosts.push(Host { name, role: Role::Storage, nics });
                    number += 1;
                }
            }
        }
        network.links.extend(links);
        Ok(())
    }
}

/// Deals `count` out to places that hold `free` each, a round at a time. `count` is at most their sum.
fn deal(free: &[u32], count: u32) -> Vec<u32> {
    let mut dealt = vec![0; free.len()];
    let mut left = count;
    while left > 0 {
        for (dealt, free) in dealt.iter_mut().zip(free) {
            if left > 0 && *dealt < *free {
                *dealt += 1;
                left -= 1;
            }
        }
    }
    dealt
}
