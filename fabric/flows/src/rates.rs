//! Weighted max-min fair rates, kept as flows come and go.

use serde::{Deserialize, Serialize};

use crate::{
    fill::fill,
    paths::{Paths, short},
    settle::Settling,
};

/// Two levels are the same if they differ by less than this part of the larger.
pub(crate) const SAME: f64 = 1e-11;

/// What a flow is for: classes have service levels of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    Storage,
    Collective,
    Other,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// No channel twice.
    pub channels: Vec<usize>,
    /// Share of a full link against the others there; above 0.
    pub weight: f64,
    /// What its source can send at most, GB/s; infinite if only links bind it.
    pub limit: f64,
    pub class: Class,
}

/// Channels, flows, and the rate of each, GB/s. A rate is right when the flow is at its limit, or some channel of it
/// is full and no flow there has more for its weight (Bertsekas and Gallager, "Data Networks", 6.5.2).
///
/// All of that follows from one number for each channel, its level: what a flow that it binds has for its weight. The
/// level of a flow is the lowest of its channels and of its limit.
#[derive(Clone, Debug)]
pub struct Rates {
    pub(crate) capacity: Vec<f64>,
    flows: Vec<Option<Flow>>,
    pub(crate) paths: Paths,
    /// The flows on each channel.
    pub(crate) on: Vec<Vec<u32>>,
    /// Infinite: it binds nobody.
    pub(crate) levels: Vec<f64>,
    pub(crate) bounds: Vec<Bounds>,
    pub(crate) settling: Settling,
}

/// What binds a flow: the lowest level of its channels and its limit, the channel that has it (a number that no channel
/// has, if it is the limit), and the lowest level but for that channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    lowest: f64,
    pub(crate) next: f64,
    /// 0 if the flow has gone.
    pub(crate) weight: f64,
    /// The level at which the flow is at its limit.
    pub(crate) limit: f64,
    channel: u32,
}

impl Bounds {
    fn new(flow: &Flow) -> Self {
        let limit = flow.limit / flow.weight;
        Self { lowest: limit, next: limit, weight: flow.weight, limit, channel: u32::MAX }
    }

    /// At other levels of the flow's channels.
    pub(crate) fn at(&self, path: &[u32], levels: &[f64]) -> Self {
        let (mut lowest, mut next, mut binds) = (self.limit, self.limit, u32::MAX);
        // Without branches, which would be mispredicted: a whole solution spends a good part of its time here.
        for &channel in path {
            let level = levels[channel as usize];
            let is_lower = level < lowest;
            let higher = if is_lower { lowest } else { level };
            next = if higher < next { higher } else { next };
            binds = if is_lower { channel } else { binds };
            lowest = if is_lower { level } else { lowest };
        }
        Self { lowest, next, channel: binds, ..*self }
    }

    /// The level that the flow would have without a channel.
    pub(crate) fn without(&self, channel: u32) -> f64 {
        if channel == self.channel { self.next } else { self.lowest }
    }
}

impl Rates {
    /// The capacity of each channel in GB/s, and all flows at once.
    pub fn new(capacity: Vec<f64>, flows: Vec<Flow>) -> Self {
        let channels = capacity.len();
        let mut all = Self {
            capacity,
            flows: Vec::new(),
            paths: Paths::new(),
            on: vec![Vec::new(); channels],
            levels: Vec::new(),
            bounds: Vec::new(),
            settling: Settling::new(channels),
        };
        for flow in flows {
            all.push(flow);
        }
        all.solve();
        all
    }

    pub fn rate(&self, flow: usize) -> f64 {
        self.flows[flow]
            .as_ref()
            .map_or(0.0, |of| (self.bounds[flow].lowest * of.weight).min(of.limit))
    }

    /// Use of a channel, GB/s.
    pub fn used(&self, channel: usize) -> f64 {
        self.on[channel].iter().map(|flow| self.rate(*flow as usize)).sum()
    }

    pub fn capacity(&self, channel: usize) -> f64 {
        self.capacity[channel]
    }

    /// All flows that there still are.
    pub fn flows(&self) -> impl Iterator<Item = (usize, &Flow)> {
        self.flows.iter().enumerate().filter_map(|(at, flow)| Some((at, flow.as_ref()?)))
    }

    /// Computes all rates anew.
    pub fn solve(&mut self) {
        self.levels = fill(&self.paths, &self.bounds, &self.on, &self.capacity);
        for (number, bounds) in self.bounds.iter_mut().enumerate() {
            *bounds = bounds.at(self.paths.of(number), &self.levels);
        }
    }

    /// Adds a flow and returns its number; changes only the rates that this touches.
    pub fn add(&mut self, flow: Flow) -> usize {
        let touched = flow.channels.clone();
        let number = self.push(flow);
        self.bounds[number] = self.bounds[number].at(self.paths.of(number), &self.levels);
        self.settle(&touched);
        number
    }

    /// Nothing binds the flow yet.
    fn push(&mut self, flow: Flow) -> usize {
        let number = self.flows.len();
        for &channel in &flow.channels {
            self.on[channel].push(short(number));
        }
        self.paths.push(&flow.channels);
        self.bounds.push(Bounds::new(&flow));
        self.flows.push(Some(flow));
        number
    }

    /// Removes a flow, if it is still there.
    pub fn remove(&mut self, number: usize) {
        let Some(flow) = self.flows[number].take() else { return };
        for &channel in &flow.channels {
            self.on[channel].retain(|other| *other as usize != number);
        }
        self.bounds[number].weight = 0.0;
        self.settle(&flow.channels);
    }

    /// Gives a flow another weight, if it is still there.
    pub fn reweigh(&mut self, number: usize, weight: f64) {
        let Some(flow) = &mut self.flows[number] else { return };
        flow.weight = weight;
        self.bounds[number] = Bounds::new(flow).at(self.paths.of(number), &self.levels);
        let touched = flow.channels.clone();
        self.settle(&touched);
    }

    /// The channel that binds a flow, if one does.
    pub fn binding(&self, number: usize) -> Option<usize> {
        self.flows[number].as_ref()?;
        Some(self.bounds[number].channel as usize).filter(|channel| *channel < self.capacity.len())
    }

    fn settle(&mut self, touched: &[usize]) {
        let mut settling = std::mem::take(&mut self.settling);
        if !settling.run(self, touched) {
            self.solve();
        }
        self.settling = settling;
    }
}
