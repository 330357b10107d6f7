//! Lets a change spread through the levels of channels, from the lowest on, as far as it reaches and no farther.
//!
//! The level of a channel follows from those of others that are lower: it is where the channel is full, if each flow
//! on it has the lower of that and of its level elsewhere. So filling has an order, as shortest paths have, and a
//! change is repaired in that order, each time the lowest channel whose level does not follow from the others any
//! more (as Ramalingam and Reps do for paths: "An incremental algorithm for a generalization of the shortest-path
//! problem", 1996). What is below is final; whatever a change does not reach is never looked at.

#[cfg(test)]
mod tests;

use std::{cmp::Ordering, collections::BinaryHeap};

use crate::{
    paths::short,
    rates::{Rates, SAME},
};

/// For each flow that there has been, so many may be looked at in a run: with more it is cheaper to compute all anew.
/// On 16,000 flows in two zones, to look at four times as many costs about as much as a whole solution.
const LOOKS_OF_FLOW: usize = 4;
/// So many may be looked at in small networks too, where both cost little.
const LOOKS_LEAST: usize = 1_000;
/// Where one change reaches nearly everything, the next is likely to do so too: whenever a run has given up, the next
/// gives up at half as many looks, halved so often at most; and each run that comes to its end doubles that again.
const HALVED_MOST: u32 = 6;

/// What a run knows so far, and its buffers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settling {
    queue: BinaryHeap<Entry>,
    channels: Vec<Known>,
    run: u64,
    /// Of the flows of one channel: the level elsewhere, and the weight.
    needs: Vec<(f64, f64)>,
    /// How often this run has looked at a flow.
    looks: usize,
    /// How often the bound of that is halved.
    halved: u32,
}

/// The lowest level is the greatest: heaps give that first.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    level: f64,
    channel: usize,
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.level.total_cmp(&self.level).then(other.channel.cmp(&self.channel))
    }
}

/// Of one channel.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The run in which all else was learnt.
    run: u64,
    /// Where it is in the queue.
    queued: Option<f64>,
    /// The level that it should have when it was last computed; and at that level, what the flows take that are
    /// bound elsewhere, and the weight of the others.
    should: f64,
    taken: f64,
    rising: f64,
    /// Nothing has changed since.
    is_exact: bool,
}

/// A flow's level elsewhere, `from` and `to`, by a change of the level `at` somewhere, or above.
#[derive(Clone, Copy, Debug)]
struct Change {
    weight: f64,
    from: f64,
    to: f64,
    at: f64,
}

impl Settling {
    pub(crate) fn new(channels: usize) -> Self {
        Self { channels: vec![Known::default(); channels], ..Self::default() }
    }

    /// Repairs the levels after the flows on `touched` have changed. False: it gave up, compute them anew.
    pub(crate) fn run(&mut self, rates: &mut Rates, touched: &[usize]) -> bool {
        self.run += 1;
        self.queue.clear();
        self.looks = 0;
        for &channel in touched {
            self.learn(rates, channel);
            self.enqueue(channel, rates.levels[channel], self.channels[channel].should);
        }
        let looks_most = ((rates.bounds.len() * LOOKS_OF_FLOW) >> self.halved).max(LOOKS_LEAST);
        while let Some(Entry { level, channel }) = self.queue.pop() {
            if self.channels[channel].queued != Some(level) {
                continue;
            }
            self.channels[channel].queued = None;
            if !self.channels[channel].is_exact {
                self.learn(rates, channel);
            }
            let (before, now) = (rates.levels[channel], self.channels[channel].should);
            if is_same(before, now) {
                continue;
            }
            if self.queue.peek().is_some_and(|next| next.level < before.min(now)) {
                self.enqueue(channel, before, now);
                continue;
            }
            if self.looks > looks_most {
                self.halved = HALVED_MOST.min(self.halved + 1);
                return false;
            }
            rates.levels[channel] = now;
            self.spread(rates, channel, before, now);
        }
        self.halved = self.halved.saturating_sub(1);
        true
    }

    /// Tells the other channels of a channel's flows that its level has changed.
    fn spread(&mut self, rates: &mut Rates, channel: usize, before: f64, now: f64) {
        let at = before.min(now);
        self.looks += rates.on[channel].len();
        for &number in &rates.on[channel] {
            let number = number as usize;
            let was = rates.bounds[number];
            // Neither before nor now is it among the two lowest of the flow.
            if at > was.next {
                continue;
            }
            let path = rates.paths.of(number);
            let after = was.at(path, &rates.levels);
            rates.bounds[number] = after;
            for &other in path.iter().filter(|other| **other as usize != channel) {
                let (from, to) = (was.without(other), after.without(other));
                if from != to {
                    let change = Change { weight: was.weight, from, to, at };
                    let other = other as usize;
                    self.touch(other, rates.levels[other], rates.capacity[other], change);
                }
            }
        }
    }

    /// A flow on a channel of this level and capacity is bound otherwise elsewhere than before.
    fn touch(&mut self, channel: usize, level: f64, capacity: f64, change: Change) {
        let Change { weight, from, to, at } = change;
        let known = &mut self.channels[channel];
        if known.run != self.run {
            // It binds the flow before and after; or it binds nobody, and less goes over it now.
            if from.min(to) >= level || (level == f64::INFINITY && to <= from) {
                return;
            }
            // Nothing below what has changed is to change now; more is learnt when its turn comes.
            *known = Known { run: self.run, queued: Some(at), ..Known::default() };
            self.queue.push(Entry { level: at, channel });
            return;
        }
        if from.min(to) >= known.should {
            return;
        }
        let (takes, frees) = (to < known.should, from < known.should);
        known.taken +=
            if takes { to * weight } else { 0.0 } - if frees { from * weight } else { 0.0 };
        known.rising += if takes { 0.0 } else { weight } - if frees { 0.0 } else { weight };
        known.is_exact = false;
        // The line that touches the use of the channel, as a function of the level, lies above it: where that is full,
        // the channel is at most.
        let left = capacity - known.taken;
        let at_least = if known.rising > 0.0 { left / known.rising } else { 0.0 };
        self.enqueue(channel, level, at_least);
    }

    /// Queues a channel whose level is not, or may not be, what it should be at least.
    fn enqueue(&mut self, channel: usize, level: f64, should: f64) {
        let known = &mut self.channels[channel];
        if known.is_exact && is_same(level, should) {
            return;
        }
        let level = level.min(should).max(0.0);
        if known.queued.is_none_or(|queued| level < queued) {
            known.queued = Some(level);
            self.queue.push(Entry { level, channel });
        }
    }

    /// Computes the level that a channel should have.
    fn learn(&mut self, rates: &Rates, channel: usize) {
        self.looks += rates.on[channel].len();
        self.needs.clear();
        let mut level: f64 = rates.levels[channel];
        let bounds = rates.on[channel].iter().map(|number| &rates.bounds[*number as usize]);
        let number = short(channel);
        self.needs.extend(bounds.map(|bounds| (bounds.without(number), bounds.weight)));
        let queued = Some(&self.channels[channel])
            .filter(|known| known.run == self.run)
            .and_then(|known| known.queued);
        // Newton's method on a function that rises ever slower: after one step it comes from below, and as it is made
        // of straight pieces, it ends on the right one.
        let mut is_below = false;
        loop {
            let (mut taken, mut rising, mut bound) = (0.0, 0.0, 0);
            for (elsewhere, weight) in &self.needs {
                if *elsewhere < level {
                    taken += elsewhere * weight;
                    bound += 1;
                } else {
                    rising += weight;
                }
            }
            let left = rates.capacity[channel] - taken;
            let is_spare = left >= -SAME * rates.capacity[channel];
            let next = match (bound == self.needs.len(), is_spare) {
                (true, true) => f64::INFINITY,
                (true, false) => 0.0,
                (false, _) => (left / rising).max(0.0),
            };
            let ends = is_below && next <= level;
            if !ends {
                level = next;
            }
            if ends || level == f64::INFINITY {
                self.channels[channel] =
                    Known { run: self.run, queued, should: level, taken, rising, is_exact: true };
                return;
            }
            is_below = true;
        }
    }
}

fn is_same(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= SAME * a.min(b)
}
