//! Fat trees by numbers.

use crate::description::{Description, LeafSwitch, Port, Role, Server};

/// Zones of two layers of switches each, which only storage nodes are in together: the network of Fire-Flyer 2
/// (arXiv 2408.14158, III-B) by default, with 40-port switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FatTree {
    pub zones: u32,
    /// Of each zone.
    pub leaves: u32,
    /// Ports of a leaf switch for nodes; as many go to the spines.
    pub ports: u32,
    /// Compute nodes of each zone.
    pub compute: u32,
    pub gpus: u32,
    /// Storage nodes of the cluster, each with a port in every zone.
    pub storage: u32,
    pub gbit_per_s: u32,
}

impl Default for FatTree {
    fn default() -> Self {
        Self {
            zones: 2,
            leaves: 40,
            ports: 20,
            compute: 600,
            gpus: 8,
            storage: 180,
            gbit_per_s: 200,
        }
    }
}

/// More nodes than a zone has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{nodes} nodes need a port in each zone, which has {ports}: make zones larger, or more of them"
)]
pub struct TooFewPorts {
    pub nodes: u64,
    pub ports: u64,
}

impl FatTree {
    /// Compute nodes lie in the order of their names at the leaves, storage nodes are dealt out to them one by one:
    /// so neighbours by name share a leaf, and traffic from storage comes from all leaves (VI-A2 of the paper).
    pub fn describe(&self) -> Result<Description, TooFewPorts> {
        let ports = u64::from(self.leaves) * u64::from(self.ports);
        let nodes = u64::from(self.compute) + u64::from(self.storage);
        if nodes > ports {
            return Err(TooFewPorts { nodes, ports });
        }
        let leaf = |zone: u32, number: u32| format!("z{zone}-leaf{number:02}");
        let zones = || 0..self.zones;
        let leaves = zones().flat_map(|zone| {
            (0..self.leaves).map(move |number| LeafSwitch {
                name: leaf(zone, number),
                zone: format!("z{zone}"),
                pod: String::new(),
            })
        });
        let port = |leaf| Port { leaf, gbit_per_s: self.gbit_per_s };
        let storage = (0..self.storage).map(|number| Server {
            name: format!("storage{number:03}"),
            role: Role::Storage,
            ports: zones().map(|zone| port(leaf(zone, number % self.leaves))).collect(),
        });
        let compute = zones().flat_map(|zone| {
            self.places().enumerate().map(move |(number, place)| Server {
                name: format!("z{zone}-gpu{number:04}"),
                role: Role::Compute { gpus: self.gpus },
                ports: vec![port(leaf(zone, place))],
            })
        });
        Ok(Description { leaves: leaves.collect(), nodes: compute.chain(storage).collect() })
    }

    /// The leaf of each compute node of a zone: what the storage nodes leave, as evenly as it goes.
    fn places(&self) -> impl Iterator<Item = u32> + use<> {
        let Self { leaves, ports, compute, storage, .. } = *self;
        let free =
            (0..leaves).map(|leaf| ports - storage / leaves - u32::from(leaf < storage % leaves));
        let mut counts: Vec<u32> = vec![0; leaves as usize];
        let free: Vec<u32> = free.collect();
        let mut left = compute;
        while left > 0 {
            // A layer at a time: leaves that are full are passed over.
            for (count, free) in counts.iter_mut().zip(&free) {
                if left > 0 && *count < *free {
                    *count += 1;
                    left -= 1;
                }
            }
        }
        (0..leaves).zip(counts).flat_map(|(leaf, count)| std::iter::repeat_n(leaf, count as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeId, Proximity, Topology};

    #[test]
    fn the_network_of_fire_flyer_2() {
        let topology = Topology::new(&FatTree::default().describe().unwrap()).unwrap();
        assert_eq!((topology.zones().count(), topology.leaves().count()), (2, 80));
        let gpus: u32 = topology.nodes().map(|(_, node)| node.gpus()).sum();
        assert_eq!((topology.nodes().count(), gpus), (1_380, 9_600));
        for (leaf, _) in topology.leaves() {
            let nodes: Vec<_> = topology.at_leaf(leaf).map(|id| topology.node(id)).collect();
            let storage = nodes.iter().filter(|node| node.role == Role::Storage).count();
            assert!((4..=5).contains(&storage), "storage is at every leaf");
            assert!((19..=20).contains(&nodes.len()) && nodes.len() - storage == 15);
        }
        // Neighbours share a leaf, and storage is in each zone.
        let near = |a: u32, b: u32| topology.proximity(NodeId(a), NodeId(b));
        assert_eq!(near(0, 14), Proximity::Leaf);
        assert_eq!(near(0, 15), Proximity::Pod);
        assert_eq!(near(0, 600), Proximity::Cluster);
        for compute in [0, 1_199] {
            assert!(near(compute, 1_200 + 77) <= Proximity::Pod);
        }
    }

    #[test]
    fn a_zone_has_as_many_ports_as_its_leaves() {
        let full = FatTree { compute: 620, ..FatTree::default() };
        let topology = Topology::new(&full.describe().unwrap()).unwrap();
        assert!(topology.leaves().all(|(leaf, _)| topology.at_leaf(leaf).count() == 20));
        let beyond = FatTree { compute: 621, ..FatTree::default() };
        assert_eq!(beyond.describe(), Err(TooFewPorts { nodes: 801, ports: 800 }));
    }
}
