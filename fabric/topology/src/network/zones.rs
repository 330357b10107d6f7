//! Zones and planes of a network that came without: what is wired together below the third layer.

use std::collections::{BTreeMap, BTreeSet};

use super::Network;
use crate::Role;

impl Network {
    /// Names zones z0, z1, ... and numbers planes in the order of their first switches. Leaves and spines that are
    /// wired together are a plane of a zone. Planes that a compute node has ports in are of the same zone; storage
    /// nodes may have ports in several. Higher switches belong to the only zone and plane they touch; to no zone if
    /// they touch several.
    pub fn find_zones(&mut self) {
        let layers = self.layers();
        let numbers = self.switch_numbers();
        let mut zones: Vec<usize> = (0..self.switches.len()).collect();
        let pairs: Vec<(usize, usize)> = (self.links.iter())
            .filter_map(|link| {
                Some((*numbers.get(link.a.node.as_str())?, *numbers.get(link.b.node.as_str())?))
            })
            .collect();
        let low = |at: usize| (1..=2).contains(&layers[at]);
        for &(a, b) in pairs.iter().filter(|(a, b)| low(*a) && low(*b)) {
            let (a, b) = (root(&zones, a), root(&zones, b));
            zones[a.max(b)] = a.min(b);
        }
        // Each group of wired switches is a plane; groups with a compute node in common are a zone.
        let mut groups: Vec<usize> = (0..self.switches.len()).collect();
        let is_compute = |host: &&crate::network::Host| matches!(host.role, Role::Compute { .. });
        let compute: BTreeSet<&str> =
            self.hosts.iter().filter(is_compute).map(|host| host.name.as_str()).collect();
        let mut first_of: BTreeMap<&str, usize> = BTreeMap::new();
        for link in &self.links {
            for (host, leaf) in [(&link.a, &link.b), (&link.b, &link.a)] {
                let Some(&leaf) = numbers.get(leaf.node.as_str()) else { continue };
                let Some(&host) = compute.get(host.node.as_str()) else { continue };
                let group = root(&zones, leaf);
                let other = *first_of.entry(host).or_insert(group);
                let (a, b) = (root(&groups, group), root(&groups, other));
                groups[a.max(b)] = a.min(b);
            }
        }
        let mut known: Vec<Option<(usize, u32)>> = vec![None; self.switches.len()];
        let mut names: BTreeMap<usize, usize> = BTreeMap::new();
        let mut of_zones: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for at in (0..self.switches.len()).filter(|at| low(*at)) {
            let group = root(&zones, at);
            let zone = root(&groups, group);
            let fresh = names.len();
            let name = *names.entry(zone).or_insert(fresh);
            let of_zone = of_zones.entry(zone).or_default();
            let plane = of_zone.iter().position(|known| *known == group).unwrap_or_else(|| {
                of_zone.push(group);
                of_zone.len() - 1
            });
            known[at] = Some((name, u32::try_from(plane).expect("planes are few")));
        }
        let mut planes: Vec<u32> =
            known.iter().map(|known| known.map_or(0, |(_, plane)| plane)).collect();
        for layer in 3..=layers.iter().max().copied().unwrap_or(0) {
            let mut touched: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
            for (a, b) in pairs.iter().flat_map(|&(a, b)| [(a, b), (b, a)]) {
                if layers[a] == layer && layers[b] + 1 == layer {
                    touched.entry(a).or_default().insert(b);
                }
            }
            for (at, below) in touched {
                let zones: BTreeSet<Option<usize>> =
                    below.iter().map(|at| known[*at].map(|(zone, _)| zone)).collect();
                let of_plane: BTreeSet<u32> = below.iter().map(|at| planes[*at]).collect();
                planes[at] = of_plane.first().copied().filter(|_| of_plane.len() == 1).unwrap_or(0);
                let zone = zones.first().copied().flatten().filter(|_| zones.len() == 1);
                known[at] = zone.map(|zone| (zone, planes[at]));
            }
        }
        for ((switch, known), plane) in self.switches.iter_mut().zip(known).zip(planes) {
            switch.zone = known.map_or_else(String::new, |(zone, _)| format!("z{zone}"));
            switch.plane = plane;
        }
    }
}

fn root(zones: &[usize], mut at: usize) -> usize {
    while zones[at] != at {
        at = zones[at];
    }
    at
}
