//! Progressive filling: all rates rise together, and stop one after the other.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use crate::{
    paths::{Paths, short},
    rates::Bounds,
};

/// Of one channel: what is left, and who still rises there.
struct Share {
    left: f64,
    weight: f64,
    rising: usize,
}

/// At which level (rate for weight) something stops.
struct Stop {
    level: f64,
    what: What,
}

enum What {
    Full(u32),
    Limit(u32),
}

impl PartialEq for Stop {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Stop {}

impl PartialOrd for Stop {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Stop {
    /// The lowest level is the greatest: heaps give that first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.level.total_cmp(&self.level)
    }
}

/// The level at which each channel stops those that still rise there; infinite: it stops none.
///
/// A channel's level only rises while others stop below it: so an entry of the heap that has become too low is
/// simply moved down, and each flow is touched once for each of its channels.
pub(crate) fn fill(paths: &Paths, flows: &[Bounds], on: &[Vec<u32>], capacity: &[f64]) -> Vec<f64> {
    let share =
        |(on, left): (&Vec<u32>, &f64)| Share { left: *left, weight: 0.0, rising: on.len() };
    let mut shares: Vec<Share> = on.iter().zip(capacity).map(share).collect();
    for (number, flow) in flows.iter().enumerate().filter(|(_, flow)| flow.weight > 0.0) {
        for channel in paths.of(number) {
            shares[*channel as usize].weight += flow.weight;
        }
    }
    let limited = flows.iter().enumerate();
    let limited = limited.filter(|(_, flow)| flow.weight > 0.0 && flow.limit.is_finite());
    let mut stops: Vec<Stop> = limited
        .map(|(number, flow)| Stop { level: flow.limit, what: What::Limit(short(number)) })
        .collect();
    let shared = shares.iter().enumerate().filter(|(_, share)| share.rising > 0);
    stops.extend(
        shared.map(|(at, share)| Stop {
            level: share.left / share.weight,
            what: What::Full(short(at)),
        }),
    );
    let mut stops = BinaryHeap::from(stops);
    let mut levels = vec![f64::INFINITY; capacity.len()];
    let mut stopped = vec![false; flows.len()];
    let mut stop_one = |number: usize, level: f64, shares: &mut [Share]| {
        if std::mem::replace(&mut stopped[number], true) {
            return;
        }
        let weight = flows[number].weight;
        for channel in paths.of(number) {
            let share = &mut shares[*channel as usize];
            share.left -= level * weight;
            share.weight -= weight;
            share.rising -= 1;
        }
    };
    while let Some(mut stop) = stops.peek_mut() {
        match stop.what {
            What::Limit(number) => {
                let stop = PeekMut::pop(stop);
                stop_one(number as usize, stop.level, &mut shares);
            }
            What::Full(at) => {
                let at = at as usize;
                let share = &shares[at];
                if share.rising == 0 {
                    PeekMut::pop(stop);
                    continue;
                }
                let level = share.left.max(0.0) / share.weight;
                if level > stop.level {
                    stop.level = level;
                    continue;
                }
                let stop = PeekMut::pop(stop);
                levels[at] = stop.level;
                for number in &on[at] {
                    stop_one(*number as usize, stop.level, &mut shares);
                }
            }
        }
    }
    levels
}
