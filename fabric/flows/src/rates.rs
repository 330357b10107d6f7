//! Weighted max-min fair rates, kept as flows come and go.

use serde::{Deserialize, Serialize};

use crate::{fill::fill, settle::Settling};

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
    pub(crate) flows: Vec<Option<Flow>>,
    /// The flows on each channel.
    pub(crate) on: Vec<Vec<usize>>,
    /// Infinite: it binds nobody.
    pub(crate) levels: Vec<f64>,
    pub(crate) bounds: Vec<Bounds>,
    settling: Settling,
}

/// What binds a flow: the lowest level of its channels and its limit, the channel that has it (a number that no channel
/// has, if it is the limit), and the lowest level but for that channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    lowest: f64,
    channel: usize,
    next: f64,
    pub(crate) weight: f64,
}

impl Bounds {
    pub(crate) fn new(flow: &Flow, levels: &[f64]) -> Self {
        let limit = flow.limit / flow.weight;
        let none = Self { lowest: limit, channel: usize::MAX, next: limit, weight: flow.weight };
        flow.channels.iter().fold(none, |so_far, &channel| {
            let level = levels[channel];
            if level < so_far.lowest {
                Self { lowest: level, channel, next: so_far.lowest, ..so_far }
            } else {
                Self { next: so_far.next.min(level), ..so_far }
            }
        })
    }

    /// The level that the flow would have without a channel.
    pub(crate) fn without(&self, channel: usize) -> f64 {
        if channel == self.channel { self.next } else { self.lowest }
    }
}

impl Rates {
    /// The capacity of each channel in GB/s, and all flows at once.
    pub fn new(capacity: Vec<f64>, flows: Vec<Flow>) -> Self {
        let channels = capacity.len();
        let mut on = vec![Vec::new(); channels];
        for (number, flow) in flows.iter().enumerate() {
            for &channel in &flow.channels {
                on[channel].push(number);
            }
        }
        let mut all = Self {
            capacity,
            flows: flows.into_iter().map(Some).collect(),
            on,
            levels: Vec::new(),
            bounds: Vec::new(),
            settling: Settling::new(channels),
        };
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
        self.on[channel].iter().map(|flow| self.rate(*flow)).sum()
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
        self.levels = fill(&self.flows, &self.on, &self.capacity);
        let none = Bounds { lowest: 0.0, channel: usize::MAX, next: 0.0, weight: 0.0 };
        let flows = self.flows.iter();
        self.bounds = flows
            .map(|flow| flow.as_ref().map_or(none, |flow| Bounds::new(flow, &self.levels)))
            .collect();
    }

    /// Adds a flow and returns its number; changes only the rates that this touches.
    pub fn add(&mut self, flow: Flow) -> usize {
        let number = self.flows.len();
        let touched = flow.channels.clone();
        for &channel in &touched {
            self.on[channel].push(number);
        }
        self.bounds.push(Bounds::new(&flow, &self.levels));
        self.flows.push(Some(flow));
        self.settle(&touched);
        number
    }

    /// Removes a flow, if it is still there.
    pub fn remove(&mut self, number: usize) {
        let Some(flow) = self.flows[number].take() else { return };
        for &channel in &flow.channels {
            self.on[channel].retain(|other| *other != number);
        }
        self.settle(&flow.channels);
    }

    /// Gives a flow another weight, if it is still there.
    pub fn reweigh(&mut self, number: usize, weight: f64) {
        let Some(flow) = &mut self.flows[number] else { return };
        flow.weight = weight;
        self.bounds[number] = Bounds::new(flow, &self.levels);
        let touched = flow.channels.clone();
        self.settle(&touched);
    }

    /// The channel that binds a flow, if one does.
    pub fn binding(&self, number: usize) -> Option<usize> {
        self.flows[number].as_ref()?;
        Some(self.bounds[number].channel).filter(|channel| *channel < self.capacity.len())
    }

    fn settle(&mut self, touched: &[usize]) {
        let mut settling = std::mem::take(&mut self.settling);
        if !settling.run(self, touched) {
            self.solve();
        }
        self.settling = settling;
    }
}
