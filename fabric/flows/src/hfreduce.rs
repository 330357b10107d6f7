//! HFReduce (arXiv 2408.14158, IV): an allreduce over the CPUs of nodes whose GPUs have no fabric of their own.
//!
//! Chunks of each GPU's data go through stages: to the host's memory over PCIe, summed there by the CPU, up a tree of
//! nodes and down again, back to the GPUs. Each node's root port and memory are channels of the simulator beside those
//! of the network, with a flow for each stage: so other traffic counts, and something binds. The slowest stage gives
//! the rate; the first chunk passes all stages, and each level of the tree twice, before anything is complete.
//!
//! Known of hosts of Fire-Flyer 2: the root port that two GPUs share passes 37.5 GB/s in both directions together; the
//! memory 320 GB/s, of which a byte of each GPU's data takes 24, or 16 where pairs of GPUs sum over NVLink first. Then
//! each of a pair also carries but half of the data. Fitted is one number, the chunk, on the four points known by
//! number of nodes without NVLink. All figures with NVLink, and all across zones, are predictions.

use ff2_routing::Lost;

use crate::{Class, Flow, Rates, Traffic, Transfer, workload::double_binary_tree};

/// GB/s, up and down together.
const ROOT_PORT: f64 = 37.5;
/// GB/s.
const MEMORY: f64 = 320.0;
/// GB. So much of a GPU's data is in one stage at a time, as it seems: fitted on 8.10, 7.78, 6.31 and 6.99 GB/s of 16,
/// 128, 1024 and 1440 GPUs.
const CHUNK: f64 = 0.006;
/// GB: what the published figures are of, 186 MiB.
pub const PUBLISHED: f64 = 0.195;
/// Different pairs of trees that chunks take in turn.
const TURNS_MAX: usize = 8;

/// Who takes part, and how.
#[derive(Clone, Copy, Debug)]
pub struct HfReduce<'a> {
    /// An endpoint of each node by zone, neighbours beside each other. Each zone has its own trees; their roots meet.
    pub zones: &'a [Vec<usize>],
    /// Pairs of GPUs have it.
    pub nvlink: bool,
    /// Of each GPU, GB.
    pub gbytes: f64,
}

/// What bounds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RootPort,
    Memory,
    /// By the channel that binds the slowest edge of the trees, if one does.
    Network(Option<usize>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Of each GPU's data, once all stages are busy, and over all.
    pub busy_gbyte_per_s: f64,
    pub gbyte_per_s: f64,
    pub binds: Stage,
}

impl HfReduce<'_> {
    /// What goes over the network. The pair of trees of each chunk begins two ranks after that of the chunk before, so
    /// that all nodes have turns at its root and at its edge.
    pub fn transfers(&self) -> Vec<Transfer> {
        (0..self.turns()).flat_map(|turn| self.turn(turn)).collect()
    }

    fn turn(&self, turn: usize) -> Vec<Transfer> {
        let turned = |ranks: &Vec<usize>| {
            let first = ranks.iter().cycle().skip(turn * 2);
            first.take(ranks.len()).copied().collect()
        };
        let zones: Vec<Vec<usize>> = self.zones.iter().map(turned).collect();
        let mut all: Vec<Transfer> =
            zones.iter().flat_map(|ranks| double_binary_tree(ranks)).collect();
        // Of both trees of a zone, the root sends to the next zone's, and that one back.
        for (here, there) in zones.iter().zip(&zones[1.min(zones.len())..]) {
            for tree in 0..2 {
                let root = |ranks: &[usize]| ranks.iter().cycle().nth(tree).copied();
                let Some((from, to)) = root(here).zip(root(there)) else { continue };
                let class = Class::Collective;
                all.extend([Transfer { from, to, class }, Transfer { from: to, to: from, class }]);
            }
        }
        all
    }

    fn turns(&self) -> usize {
        let most = self.zones.iter().map(Vec::len).max().unwrap_or(0);
        (most / 2).clamp(1, TURNS_MAX)
    }

    /// Levels of the trees: chunks go up and down each.
    fn levels(&self) -> f64 {
        let most = self.zones.iter().map(Vec::len).max().unwrap_or(0);
        f64::from(most.next_power_of_two().trailing_zeros())
            + self.zones.len().saturating_sub(1) as f64
    }

    /// Runs it beside `others`, on a network of this capacity.
    pub fn run(
        &self,
        traffic: &Traffic<'_>,
        capacity: &[f64],
        others: &[Flow],
    ) -> Result<Outcome, Lost> {
        let edges = traffic.flows(&self.transfers())?;
        let alone = |channel: usize| Flow {
            channels: vec![channel],
            weight: 1.0,
            limit: f64::INFINITY,
            class: Class::Collective,
        };
        // Of each byte of a GPU's data: up and down for two GPUs, or for half of the data of each.
        let (root_port, memory) = match self.nvlink {
            true => (ROOT_PORT / 2.0, MEMORY / 16.0),
            false => (ROOT_PORT / 4.0, MEMORY / 24.0),
        };
        let nodes: usize = self.zones.iter().map(Vec::len).sum();
        let mut capacity = capacity.to_vec();
        let mut flows = edges;
        let trees = flows.len();
        for of_stage in [root_port, memory] {
            for _ in 0..nodes {
                flows.push(alone(capacity.len()));
                capacity.push(of_stage);
            }
        }
        flows.extend_from_slice(others);
        let rates = Rates::new(capacity, flows);
        let slowest = |from: usize, count: usize| {
            let all = from..from + count;
            all.min_by(|a, b| rates.rate(*a).total_cmp(&rates.rate(*b)))
                .map(|flow| (rates.rate(flow), flow))
        };
        let root_port = slowest(trees, nodes).map_or(f64::INFINITY, |(rate, _)| rate);
        let memory = slowest(trees + nodes, nodes).map_or(f64::INFINITY, |(rate, _)| rate);
        // Each edge carries half of the data, in one of the turns.
        let share = 2.0 * self.turns() as f64;
        let (network, edge) = slowest(0, trees)
            .map_or((f64::INFINITY, None), |(rate, flow)| (rate * share, Some(flow)));
        let busy = root_port.min(memory).min(network);
        let binds = if busy == network {
            Stage::Network(edge.and_then(|edge| rates.binding(edge)))
        } else if busy == memory {
            Stage::Memory
        } else {
            Stage::RootPort
        };
        // Up the root port and down, the sum, and for each level the network twice and the sum of two.
        let level = 2.0 / network + 3.0 / MEMORY;
        let first = CHUNK * (2.0 / root_port + 1.0 / memory + self.levels() * level);
        let seconds = self.gbytes / busy + first;
        Ok(Outcome { busy_gbyte_per_s: busy, gbyte_per_s: self.gbytes / seconds, binds })
    }
}
