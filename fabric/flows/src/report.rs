//! What a simulation shows.

use serde::Serialize;

use crate::Rates;

/// The use of one direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Use {
    pub channel: usize,
    pub gbyte_per_s: f64,
    /// Part of what it can, 0 to 1.
    pub part: f64,
}

/// Rates are GB/s of payload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub flows: usize,
    pub total: f64,
    pub mean: f64,
    pub slowest: f64,
    /// How equal the rates are: 1 if all are the same (Jain, Chiu and Hawe, 1984).
    pub fairness: f64,
    /// Channels with something on them, the fullest first.
    pub links: Vec<Use>,
    /// The channel that binds most flows, and how many.
    pub binds_most: Option<(usize, usize)>,
}

impl Report {
    pub fn new(rates: &Rates, channels: usize) -> Self {
        let each: Vec<f64> = rates.flows().map(|(number, _)| rates.rate(number)).collect();
        let total: f64 = each.iter().sum();
        let squares: f64 = each.iter().map(|rate| rate * rate).sum();
        let count = each.len() as f64;
        let mut bound = vec![0_usize; channels];
        for (number, _) in rates.flows() {
            if let Some(channel) = rates.binding(number) {
                bound[channel] += 1;
            }
        }
        let busy = (0..channels).filter(|channel| rates.used(*channel) > 0.0);
        let mut links: Vec<Use> = busy
            .map(|channel| {
                let gbyte_per_s = rates.used(channel);
                Use { channel, gbyte_per_s, part: gbyte_per_s / rates.capacity(channel) }
            })
            .collect();
        links.sort_by(|a, b| b.part.total_cmp(&a.part).then(a.channel.cmp(&b.channel)));
        let most = bound
            .into_iter()
            .enumerate()
            .max_by_key(|(channel, count)| (*count, usize::MAX - channel));
        Self {
            flows: each.len(),
            total,
            mean: if each.is_empty() { 0.0 } else { total / count },
            slowest: each.iter().copied().reduce(f64::min).unwrap_or(0.0),
            fairness: if squares > 0.0 { total * total / (count * squares) } else { 1.0 },
            links,
            binds_most: most.filter(|(_, count)| *count > 0),
        }
    }
}
