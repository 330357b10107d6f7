//! Zones of a network that came without: what is wired together below the third layer.

use std::collections::{BTreeMap, BTreeSet};

use super::Network;

impl Network {
    /// Names zones z0, z1, ... in the order of their first switches. Leaves and spines that are wired together are a
    /// zone; higher switches belong to the only zone they touch, or to none if they touch several. Planes are not
    /// told from zones.
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
        let mut known: Vec<Option<usize>> = vec![None; self.switches.len()];
        let mut names: BTreeMap<usize, usize> = BTreeMap::new();
        for at in (0..self.switches.len()).filter(|at| low(*at)) {
            let fresh = names.len();
            known[at] = Some(*names.entry(root(&zones, at)).or_insert(fresh));
        }
        for layer in 3..=layers.iter().max().copied().unwrap_or(0) {
            let mut touched: BTreeMap<usize, BTreeSet<Option<usize>>> = BTreeMap::new();
            for &(a, b) in
                pairs.iter().chain(&pairs.iter().map(|(a, b)| (*b, *a)).collect::<Vec<_>>())
            {
                if layers[a] == layer && layers[b] + 1 == layer {
                    touched.entry(a).or_default().insert(known[b]);
                }
            }
            for (at, zones) in touched {
                known[at] = zones.first().copied().flatten().filter(|_| zones.len() == 1);
            }
        }
        for (switch, zone) in self.switches.iter_mut().zip(known) {
            switch.zone = zone.map_or_else(String::new, |zone| format!("z{zone}"));
        }
    }
}

fn root(zones: &[usize], mut at: usize) -> usize {
    while zones[at] != at {
        at = zones[at];
    }
    at
}
