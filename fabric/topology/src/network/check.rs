//! Wiring faults, each named by port.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{End, Network};

/// What is wrong with the wiring, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Two cables in one port, or a port that the switch or host has not.
    Port(End, &'static str),
    /// A cable to a name that is neither switch nor host.
    Unknown(End),
    /// A host's port with nothing in it.
    Unplugged(End),
    /// A leaf with fewer cables to a spine than the other leaves have: the missing number.
    Missing { leaf: String, spine: String, ports: Vec<u32>, missing: usize },
    /// More cables from a leaf to a spine than the other leaves have: where one is too many, one is missing.
    Swapped { ends: Vec<End>, expected: usize },
    /// Leaves of a zone have differently many uplinks.
    Uplinks { leaf: String, uplinks: usize, expected: usize },
    /// A link slower or faster than most between the same layers.
    Speed { a: End, b: End, gbit_per_s: u32, expected: u32 },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(end, what) => write!(f, "port {end}: {what}"),
            Self::Unknown(end) => write!(f, "a cable leads to {end}, which is not described"),
            Self::Unplugged(end) => write!(f, "host port {end} has no cable"),
            Self::Missing { leaf, spine, ports, missing } => write!(
                f,
                "{missing} missing between {leaf} and {spine}; free ports of {leaf}: {ports:?}"
            ),
            Self::Swapped { ends, expected } => {
                let ends: Vec<_> = ends.iter().map(ToString::to_string).collect();
                write!(f, "one too many of {} (expected {expected}): swapped?", ends.join(", "))
            }
            Self::Uplinks { leaf, uplinks, expected } => {
                write!(f, "leaf {leaf} has {uplinks} uplinks, most have {expected}")
            }
            Self::Speed { a, b, gbit_per_s, expected } => {
                write!(f, "{a} - {b} runs at {gbit_per_s} Gbit/s, most such at {expected}")
            }
        }
    }
}

impl Network {
    /// All wiring faults. What is right is what most have: no plan of the wiring is needed.
    pub fn check(&self) -> Vec<Fault> {
        let mut faults = self.ports_are_used_once();
        faults.extend(self.leaves_are_alike());
        faults.extend(self.speeds_are_alike());
        faults
    }

    fn ports_are_used_once(&self) -> Vec<Fault> {
        let switches = self.switches.iter().map(|switch| (switch.name.as_str(), switch.ports));
        let hosts = self.hosts.iter().map(|host| (host.name.as_str(), host.nics));
        let ports: BTreeMap<&str, u32> = switches.chain(hosts).collect();
        let mut used = BTreeSet::new();
        let mut faults = Vec::new();
        for end in self.links.iter().flat_map(|link| [&link.a, &link.b]) {
            match ports.get(end.node.as_str()) {
                None => faults.push(Fault::Unknown(end.clone())),
                Some(ports) if end.port == 0 || end.port > *ports => {
                    faults.push(Fault::Port(end.clone(), "no such port"));
                }
                Some(_) if !used.insert(end) => {
                    faults.push(Fault::Port(end.clone(), "two cables in it"));
                }
                Some(_) => {}
            }
        }
        let plugs = self
            .hosts
            .iter()
            .flat_map(|host| (1..=host.nics).map(|port| End::new(host.name.as_str(), port)));
        faults.extend(plugs.filter(|end| !used.contains(end)).map(Fault::Unplugged));
        faults
    }

    fn leaves_are_alike(&self) -> Vec<Fault> {
        let layers = self.layers();
        let numbers = self.switch_numbers();
        // The leaf's ports to each spine.
        let mut cables: BTreeMap<(usize, usize), Vec<u32>> = BTreeMap::new();
        let mut used: BTreeSet<(usize, u32)> = BTreeSet::new();
        for link in &self.links {
            for (near, far) in [(&link.a, &link.b), (&link.b, &link.a)] {
                let Some(&leaf) = numbers.get(near.node.as_str()) else { continue };
                used.insert((leaf, near.port));
                if let Some(&spine) = numbers.get(far.node.as_str())
                    && layers[leaf] == 1
                    && layers[spine] == 2
                {
                    cables.entry((leaf, spine)).or_default().push(near.port);
                }
            }
        }
        let group = |at: usize| (self.switches[at].zone.as_str(), self.switches[at].plane);
        let at_layer = |layer| (0..self.switches.len()).filter(|at| layers[*at] == layer).collect();
        let leaves: Vec<usize> = at_layer(1);
        let spines: Vec<usize> = at_layer(2);
        let mut faults = Vec::new();
        for &spine in &spines {
            let near = leaves.iter().filter(|leaf| group(**leaf) == group(spine));
            let counts: Vec<(usize, usize)> =
                near.map(|leaf| (*leaf, cables.get(&(*leaf, spine)).map_or(0, Vec::len))).collect();
            let Some(expected) = most(counts.iter().map(|(_, count)| *count)) else { continue };
            for (leaf, count) in counts {
                let name = &self.switches[leaf].name;
                if count < expected {
                    let free =
                        (1..=self.switches[leaf].ports).filter(|p| !used.contains(&(leaf, *p)));
                    faults.push(Fault::Missing {
                        leaf: name.clone(),
                        spine: self.switches[spine].name.clone(),
                        ports: free.collect(),
                        missing: expected - count,
                    });
                } else if count > expected {
                    let ports = &cables[&(leaf, spine)];
                    let ends = ports.iter().map(|port| End::new(name.as_str(), *port)).collect();
                    faults.push(Fault::Swapped { ends, expected });
                }
            }
        }
        for &leaf in &leaves {
            let uplinks = |at: usize| {
                cables
                    .range((at, 0)..=(at, usize::MAX))
                    .map(|(_, ports)| ports.len())
                    .sum::<usize>()
            };
            let alike = leaves.iter().filter(|other| group(**other) == group(leaf));
            let expected = most(alike.map(|other| uplinks(*other))).unwrap_or(0);
            if uplinks(leaf) != expected {
                let leaf_name = self.switches[leaf].name.clone();
                faults.push(Fault::Uplinks { leaf: leaf_name, uplinks: uplinks(leaf), expected });
            }
        }
        faults
    }

    fn speeds_are_alike(&self) -> Vec<Fault> {
        let layers = self.layers();
        let numbers = self.switch_numbers();
        let layer = |end: &End| numbers.get(end.node.as_str()).map_or(0, |at| layers[*at]);
        let kind = |a: &End, b: &End| (layer(a).min(layer(b)), layer(a).max(layer(b)));
        let mut speeds: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
        for link in &self.links {
            speeds.entry(kind(&link.a, &link.b)).or_default().push(link.gbit_per_s);
        }
        let usual: BTreeMap<_, _> = speeds
            .into_iter()
            .filter_map(|(kind, speeds)| Some((kind, most(speeds.into_iter())?)))
            .collect();
        let odd = self.links.iter().filter(|l| usual[&kind(&l.a, &l.b)] != l.gbit_per_s);
        odd.map(|link| Fault::Speed {
            a: link.a.clone(),
            b: link.b.clone(),
            gbit_per_s: link.gbit_per_s,
            expected: usual[&kind(&link.a, &link.b)],
        })
        .collect()
    }
}

/// The most frequent, the larger one of equals.
fn most<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(value, count)| (*count, *value)).map(|(value, _)| value)
}
