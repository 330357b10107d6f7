//! Progressive filling: all rates rise together, and stop one after the other.

use std::{cmp::Ordering, collections::BinaryHeap};

use crate::rates::Flow;

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
    Full(usize),
    Limit(usize),
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
/// simply put back, and each flow is touched once for each of its channels.
pub(crate) fn fill(flows: &[Option<Flow>], on: &[Vec<usize>], capacity: &[f64]) -> Vec<f64> {
    let shares = on.iter().zip(capacity);
    let share =
        |(on, left): (&Vec<usize>, &f64)| Share { left: *left, weight: 0.0, rising: on.len() };
    let mut shares: Vec<Share> = shares.map(share).collect();
    let mut stops = Vec::new();
    for (number, flow) in
        flows.iter().enumerate().filter_map(|(at, flow)| Some((at, flow.as_ref()?)))
    {
        for channel in &flow.channels {
            shares[*channel].weight += flow.weight;
        }
        if flow.limit.is_finite() {
            stops.push(Stop { level: flow.limit / flow.weight, what: What::Limit(number) });
        }
    }
    let shared = shares.iter().enumerate().filter(|(_, share)| share.rising > 0);
    stops.extend(
        shared.map(|(at, share)| Stop { level: share.left / share.weight, what: What::Full(at) }),
    );
    let mut stops = BinaryHeap::from(stops);
    let mut levels = vec![f64::INFINITY; capacity.len()];
    let mut stopped = vec![false; flows.len()];
    let mut stop_one = |number: usize, level: f64, shares: &mut [Share]| {
        let Some(flow) = &flows[number] else { return };
        if std::mem::replace(&mut stopped[number], true) {
            return;
        }
        for channel in &flow.channels {
            let share = &mut shares[*channel];
            share.left -= level * flow.weight;
            share.weight -= flow.weight;
            share.rising -= 1;
        }
    };
    while let Some(stop) = stops.pop() {
        match stop.what {
            What::Limit(number) => stop_one(number, stop.level, &mut shares),
            What::Full(at) => {
                let share = &shares[at];
                if share.rising == 0 {
                    continue;
                }
                let level = share.left.max(0.0) / share.weight;
                if level > stop.level {
                    stops.push(Stop { level, what: What::Full(at) });
                    continue;
                }
                levels[at] = stop.level;
                for number in &on[at] {
                    stop_one(*number, stop.level, &mut shares);
                }
            }
        }
    }
    levels
}
