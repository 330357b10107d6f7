//! Who sends to whom.

use std::collections::BTreeSet;

use ff2_routing::{Graph, Lost, Tables};
use ff2_topology::{Network, Role};

use crate::{Class, Flow};

/// Between two endpoints of the graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    pub from: usize,
    pub to: usize,
    pub class: Class,
}

/// How transfers become flows.
#[derive(Clone, Debug)]
pub struct Traffic<'a> {
    pub graph: &'a Graph,
    pub tables: &'a Tables,
    /// Of storage, collective and other.
    pub weights: [f64; 3],
}

impl Traffic<'_> {
    pub fn flows(&self, transfers: &[Transfer]) -> Result<Vec<Flow>, Lost> {
        let flow = |transfer: &Transfer| {
            let channels = self.tables.path(self.graph, transfer.from, transfer.to)?;
            let weight = self.weights[transfer.class as usize];
            Ok(Flow { channels, weight, limit: f64::INFINITY, class: transfer.class })
        };
        transfers.iter().map(flow).collect()
    }
}

/// The capacity of each channel, GB/s: `efficiency` is what part of the wire's speed is payload.
pub fn capacities(network: &Network, efficiency: f64, failed: &BTreeSet<usize>) -> Vec<f64> {
    let links = network.links.iter().enumerate();
    links
        .flat_map(|(at, link)| {
            let works = if failed.contains(&at) { 0.0 } else { efficiency };
            [f64::from(link.gbit_per_s) / 8.0 * works; 2]
        })
        .collect()
}

/// Numbers that look random and are the same on every run (SplitMix64: Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// Below `sides`, which is not 0.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % sides as u64).expect("below a usize")
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.roll(at + 1));
        }
    }
}

/// Endpoints of compute nodes, or of storage nodes.
pub fn endpoints(graph: &Graph, storage: bool) -> Vec<usize> {
    let all = graph.endpoints().iter().enumerate();
    all.filter(|(_, e)| (e.role == Role::Storage) == storage && e.role != Role::Management)
        .map(|(number, _)| number)
        .collect()
}

/// Everyone sends to one other, and receives from one.
pub fn permutation(members: &[usize], dice: &mut Dice) -> Vec<Transfer> {
    let mut targets = members.to_vec();
    dice.shuffle(&mut targets);
    pairs(members.iter().copied().zip(targets), Class::Other)
}

/// Everyone sends to the one `by` further on, round the end.
pub fn shift(members: &[usize], by: usize) -> Vec<Transfer> {
    let targets = members.iter().cycle().skip(by % members.len().max(1));
    pairs(members.iter().copied().zip(targets.copied()), Class::Other)
}

/// Each client has `window` reads under way, each from any storage node, by its port in the client's own zone: the
/// credits of request-to-send (arXiv 2408.14158, VI-B3) allow no more senders at once.
pub fn storage_read(
    traffic: &Traffic<'_>,
    clients: &[usize],
    window: usize,
    dice: &mut Dice,
) -> Vec<Transfer> {
    let mut transfers = Vec::new();
    let storage = endpoints(traffic.graph, true);
    for &to in clients {
        let near = nearest(traffic, &storage, to);
        if near.is_empty() {
            continue;
        }
        for _ in 0..window {
            transfers.push(Transfer {
                from: near[dice.roll(near.len())],
                to,
                class: Class::Storage,
            });
        }
    }
    transfers
}

/// Each client writes `window` chunks, each to the head of a chain of `replicas` storage nodes that pass it on.
pub fn storage_write(
    traffic: &Traffic<'_>,
    clients: &[usize],
    window: usize,
    replicas: usize,
    dice: &mut Dice,
) -> Vec<Transfer> {
    let mut transfers = Vec::new();
    let storage = endpoints(traffic.graph, true);
    for &client in clients {
        let mut near = nearest(traffic, &storage, client);
        for _ in 0..window {
            dice.shuffle(&mut near);
            let chain = std::iter::once(client).chain(near.iter().copied().take(replicas));
            let hops: Vec<usize> = chain.collect();
            transfers.extend(pairs(hops.windows(2).map(|hop| (hop[0], hop[1])), Class::Storage));
        }
    }
    transfers
}

/// Each rank sends to the next.
pub fn ring(ranks: &[usize]) -> Vec<Transfer> {
    let next = ranks.iter().cycle().skip(1);
    pairs(ranks.iter().copied().zip(next.copied()), Class::Collective)
}

/// Two binary trees, each with half of the data, up and down: whoever is inside one is a leaf of the other (Sanders,
/// Speck and Traff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan", 2009). The second is the
/// first one rank further on; its inner ranks are the odd ones.
pub fn double_binary_tree(ranks: &[usize]) -> Vec<Transfer> {
    let mut both = Vec::new();
    for by in 0..2 {
        for child in 1..ranks.len() {
            let parent = tree_parent(child, ranks.len());
            let place = |rank: usize| ranks[(rank + by) % ranks.len()];
            both.extend([(place(child), place(parent)), (place(parent), place(child))]);
        }
    }
    pairs(both.into_iter(), Class::Collective)
}

/// The tree in which odd ranks are leaves: a rank's lowest set bit is its height.
fn tree_parent(rank: usize, count: usize) -> usize {
    let bit = rank & rank.wrapping_neg();
    let up = (rank ^ bit) | (bit << 1);
    if up >= count { rank ^ bit } else { up }
}

/// The storage endpoints from which the way to a client is as short as most: those of its zone.
fn nearest(traffic: &Traffic<'_>, storage: &[usize], client: usize) -> Vec<usize> {
    let steps = |from: usize| {
        traffic.tables.path(traffic.graph, from, client).map_or(usize::MAX, |path| path.len())
    };
    // Host, leaf, spine, leaf, host: more only between zones.
    storage.iter().copied().filter(|from| *from != client && steps(*from) <= 4).collect()
}

fn pairs(pairs: impl Iterator<Item = (usize, usize)>, class: Class) -> Vec<Transfer> {
    pairs.filter(|(from, to)| from != to).map(|(from, to)| Transfer { from, to, class }).collect()
}

/// The first half of the members (prefill) each send a key-value cache to one of the others (decode).
pub fn kv_transfer(members: &[usize], dice: &mut Dice) -> Vec<Transfer> {
    let (prefill, decode) = members.split_at(members.len() / 2);
    let mut targets = decode.to_vec();
    dice.shuffle(&mut targets);
    pairs(prefill.iter().copied().zip(targets), Class::Other)
}
