//! Progressive filling: all rates rise together, and stop one after the other.

use std::{cmp::Ordering, collections::BinaryHeap};

/// What a flow asks for.
pub(crate) struct Need<'a> {
    pub(crate) channels: &'a [usize],
    pub(crate) weight: f64,
    pub(crate) limit: f64,
}

/// Of one channel: what is left, and who still rises there.
struct Share {
    left: f64,
    weight: f64,
    members: Vec<usize>,
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

/// The max-min fair rate of each need, with `left` of each of so many channels to share.
///
/// A channel's level only rises while others stop below it: so an entry of the heap that has become too low is
/// simply put back, and each flow is touched once for each of its channels.
pub(crate) fn fill(needs: &[Need<'_>], channels: usize, left: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut places: Vec<Option<usize>> = vec![None; channels];
    let mut shares: Vec<Share> = Vec::new();
    let mut ways: Vec<Vec<usize>> = Vec::with_capacity(needs.len());
    for (number, need) in needs.iter().enumerate() {
        let way = need.channels.iter().map(|channel| {
            let place = *places[*channel].get_or_insert_with(|| {
                let left = left(*channel);
                shares.push(Share { left, weight: 0.0, members: Vec::new(), rising: 0 });
                shares.len() - 1
            });
            shares[place].weight += need.weight;
            shares[place].members.push(number);
            shares[place].rising += 1;
            place
        });
        ways.push(way.collect());
    }
    let limits = needs.iter().enumerate().filter(|(_, need)| need.limit.is_finite());
    let limits = limits
        .map(|(number, need)| Stop { level: need.limit / need.weight, what: What::Limit(number) });
    let full = shares.iter().enumerate();
    let full =
        full.map(|(at, share)| Stop { level: share.left / share.weight, what: What::Full(at) });
    let mut stops: BinaryHeap<Stop> = full.chain(limits).collect();
    let mut rates = vec![f64::NAN; needs.len()];
    while let Some(stop) = stops.pop() {
        let stopped = match stop.what {
            What::Limit(number) => vec![number],
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
                share.members.clone()
            }
        };
        for number in stopped {
            if !rates[number].is_nan() {
                continue;
            }
            let need = &needs[number];
            rates[number] = (stop.level * need.weight).min(need.limit);
            for &at in &ways[number] {
                let share = &mut shares[at];
                share.left -= rates[number];
                share.weight -= need.weight;
                share.rising -= 1;
            }
        }
    }
    // Only what has neither channels nor a limit is left over.
    rates.into_iter().map(|rate| if rate.is_nan() { f64::INFINITY } else { rate }).collect()
}
