//! Until all bytes are sent: when each flow ends.

use crate::{Flow, Rates};

/// When a flow ended, and how much later than alone on the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    /// Infinite if a failed link lets nothing through.
    pub seconds: f64,
    /// 1: as fast as alone.
    pub slowdown: f64,
}

/// All flows begin at once with `gbytes` each; rates are computed anew whenever one ends.
pub fn run(capacity: Vec<f64>, flows: Vec<Flow>, gbytes: &[f64]) -> Vec<End> {
    let alone: Vec<f64> = flows
        .iter()
        .map(|flow| flow.channels.iter().map(|at| capacity[*at]).fold(flow.limit, f64::min))
        .collect();
    let mut left = gbytes.to_vec();
    let mut ends = vec![End { seconds: f64::INFINITY, slowdown: f64::INFINITY }; flows.len()];
    let mut rates = Rates::new(capacity, flows);
    let mut open: Vec<usize> = (0..ends.len()).collect();
    let mut now = 0.0;
    while !open.is_empty() {
        let times = open.iter().map(|flow| left[*flow] / rates.rate(*flow));
        let step = times.fold(f64::INFINITY, f64::min);
        if !step.is_finite() {
            break;
        }
        now += step;
        let mut ended = Vec::new();
        open.retain(|&flow| {
            left[flow] -= rates.rate(flow) * step;
            let ends_now = left[flow] <= gbytes[flow] * 1e-9;
            if ends_now {
                ended.push(flow);
            }
            !ends_now
        });
        for flow in ended {
            let slowdown = now / (gbytes[flow] / alone[flow]);
            ends[flow] = End { seconds: now, slowdown };
            rates.remove(flow);
        }
    }
    ends
}
