//! Weighted max-min fair rates, kept as flows come and go.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::fill::{Need, fill};

/// Two rates are the same if they differ by less than this part of the larger.
const SAME: f64 = 1e-9;

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
    /// Share of a full link against the others there.
    pub weight: f64,
    /// What its source can send at most, GB/s; infinite if only links bind it.
    pub limit: f64,
    pub class: Class,
}

/// Channels, flows, and the rate of each, GB/s. A rate is right when the flow is at its limit, or some channel of it
/// is full and no flow there has more for its weight (Bertsekas and Gallager, "Data Networks", 6.5.2).
#[derive(Clone, Debug)]
pub struct Rates {
    capacity: Vec<f64>,
    flows: Vec<Option<Flow>>,
    rates: Vec<f64>,
    /// The flows on each channel.
    on: Vec<Vec<usize>>,
    used: Vec<f64>,
    /// The most that any flow of a channel has for its weight.
    top: Vec<f64>,
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
            rates: vec![0.0; flows.len()],
            flows: flows.into_iter().map(Some).collect(),
            on,
            used: vec![0.0; channels],
            top: vec![0.0; channels],
        };
        all.solve();
        all
    }

    pub fn rate(&self, flow: usize) -> f64 {
        self.rates[flow]
    }

    /// Use of a channel, GB/s.
    pub fn used(&self, channel: usize) -> f64 {
        self.used[channel]
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
        let all: BTreeSet<usize> = self.flows().map(|(number, _)| number).collect();
        self.fill(&all);
        for channel in 0..self.capacity.len() {
            self.count(channel);
        }
    }

    /// Adds a flow and returns its number; changes only the rates that this touches.
    pub fn add(&mut self, flow: Flow) -> usize {
        let number = self.flows.len();
        let touched = flow.channels.clone();
        for &channel in &touched {
            self.on[channel].push(number);
        }
        self.flows.push(Some(flow));
        self.rates.push(0.0);
        self.settle(BTreeSet::from([number]), touched);
        number
    }

    /// Removes a flow, if it is still there.
    pub fn remove(&mut self, number: usize) {
        let Some(flow) = self.flows[number].take() else { return };
        self.rates[number] = 0.0;
        for &channel in &flow.channels {
            self.on[channel].retain(|other| *other != number);
            self.count(channel);
        }
        self.settle(BTreeSet::new(), flow.channels);
    }

    /// The channel that binds a flow, if one does.
    pub fn binding(&self, number: usize) -> Option<usize> {
        let flow = self.flows[number].as_ref()?;
        let level = self.rates[number] / flow.weight;
        let binds = |channel: &&usize| {
            self.is_full(**channel) && level >= self.top[**channel] * (1.0 - SAME)
        };
        flow.channels.iter().find(binds).copied()
    }

    /// Solves for ever more flows, with the others as they are, until all that is touched has its right rate.
    fn settle(&mut self, mut open: BTreeSet<usize>, mut touched: Vec<usize>) {
        let mut is_first = true;
        loop {
            if open.len() * 2 > self.flows.len() {
                return self.solve();
            }
            let mut changed = self.fill(&open);
            for number in &open {
                touched.extend(self.flows[*number].iter().flat_map(|flow| &flow.channels));
            }
            touched.sort_unstable();
            touched.dedup();
            let before = open.len();
            for &channel in &touched {
                self.count(channel);
            }
            if is_first {
                changed.clone_from(&touched);
            }
            // Whoever was right stays so where nothing changed. Those let in last may still need others to give way.
            let mut near: Vec<usize> =
                changed.iter().flat_map(|channel| &self.on[*channel]).copied().collect();
            near.extend(&open);
            is_first = false;
            near.sort_unstable();
            near.dedup();
            let wrong: Vec<usize> = near.into_iter().filter(|flow| !self.is_right(*flow)).collect();
            for number in wrong {
                // Who has more on a full channel must give way to it.
                let level = self.level(number);
                if open.contains(&number) {
                    let flow = self.flows[number].as_ref().expect("it is on a channel");
                    let full = flow.channels.iter().filter(|channel| self.is_full(**channel));
                    let higher = full.flat_map(|channel| &self.on[*channel]);
                    open.extend(higher.filter(|other| self.level(**other) > level * (1.0 + SAME)));
                }
                open.insert(number);
            }
            if open.len() == before {
                return;
            }
        }
    }

    fn level(&self, number: usize) -> f64 {
        self.flows[number].as_ref().map_or(0.0, |flow| self.rates[number] / flow.weight)
    }

    fn is_full(&self, channel: usize) -> bool {
        self.used[channel] >= self.capacity[channel] * (1.0 - SAME)
    }

    fn is_right(&self, number: usize) -> bool {
        let limit = self.flows[number].as_ref().map_or(0.0, |flow| flow.limit);
        self.rates[number] >= limit * (1.0 - SAME) || self.binding(number).is_some()
    }

    /// Gives those in `open` their rates, and returns the channels on which one has another than before.
    fn fill(&mut self, open: &BTreeSet<usize>) -> Vec<usize> {
        let before: Vec<f64> =
            open.iter().map(|number| std::mem::take(&mut self.rates[*number])).collect();
        let needs: Vec<Need<'_>> = open
            .iter()
            .filter_map(|number| self.flows[*number].as_ref())
            .map(|flow| Need { channels: &flow.channels, weight: flow.weight, limit: flow.limit })
            .collect();
        let left = |channel: usize| {
            let taken: f64 = self.on[channel].iter().map(|flow| self.rates[*flow]).sum();
            (self.capacity[channel] - taken).max(0.0)
        };
        let rates = fill(&needs, self.capacity.len(), left);
        let mut changed = Vec::new();
        for ((number, rate), before) in open.iter().zip(rates).zip(before) {
            self.rates[*number] = rate;
            if rate != before {
                changed.extend(self.flows[*number].iter().flat_map(|flow| &flow.channels));
            }
        }
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    fn count(&mut self, channel: usize) {
        self.used[channel] = self.on[channel].iter().map(|flow| self.rates[*flow]).sum();
        let levels = self.on[channel].iter().map(|flow| self.level(*flow));
        self.top[channel] = levels.fold(0.0, f64::max);
    }
}
