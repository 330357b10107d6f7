//! One step, as it is shown and kept.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::run::{Done, Score, Training};

/// A line of `metrics.jsonl`. Later versions may add fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// From 1.
    pub(crate) step: u64,
    /// Unix time in seconds.
    pub(crate) time: f64,
    /// Nats a token, mean of the step; null if it was no number.
    pub(crate) loss: Option<f64>,
    /// The same of multi-token prediction.
    pub(crate) mtp_loss: Option<f64>,
    pub(crate) learning_rate: f64,
    /// Before clipping; null if it was no number.
    pub(crate) grad_norm: Option<f64>,
    /// Since the beginning of the run.
    pub(crate) tokens: u64,
    /// Of this step.
    pub(crate) seconds: f64,
    pub(crate) tokens_per_second: f64,
    /// Model FLOPs utilisation: what training asks for, as a share of what large products reach on this machine.
    pub(crate) mfu: f64,
    /// How far the most loaded expert is above the mean, as a share of that; null without experts.
    pub(crate) expert_max_violation: Option<f64>,
    /// Share of the step's choices that each expert got, mean over layers.
    pub(crate) expert_load: Vec<f64>,
    /// The step was left out: its loss or gradient was no number.
    pub(crate) is_bad: bool,
    pub(crate) heldout: Option<Score>,
}

impl Record {
    /// Of a step that took this long; `flops_share` is the arithmetic of a token over what the machine does a second.
    pub(crate) fn new(training: &Training, done: &Done, took: Duration, flops_share: f64) -> Self {
        let finite = |x: f64| x.is_finite().then_some(x);
        let seconds = took.as_secs_f64();
        let tokens_per_second = done.tokens as f64 / seconds;
        Self {
            step: training.step,
            time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            loss: finite(done.loss),
            mtp_loss: finite(done.mtp).filter(|mtp| *mtp > 0.0),
            learning_rate: done.learning_rate,
            grad_norm: finite(done.grad_norm),
            tokens: training.tokens,
            seconds,
            tokens_per_second,
            mfu: tokens_per_second * flops_share,
            expert_max_violation: done.max_violation(),
            expert_load: done.expert_shares(),
            is_bad: done.is_bad,
            heldout: None,
        }
    }
}

/// For tests.
#[cfg(test)]
pub(crate) fn example(step: u64) -> Record {
    Record {
        step,
        time: 1e9 + step as f64,
        loss: Some(5.0 / step as f64 + 1.0),
        mtp_loss: Some(6.0 / step as f64 + 1.0),
        learning_rate: 1e-3,
        grad_norm: Some(0.5),
        tokens: 2048 * step,
        seconds: 0.5,
        tokens_per_second: 4096.0,
        mfu: 0.4,
        expert_max_violation: Some(0.25),
        expert_load: vec![0.3, 0.2, 0.3, 0.2],
        is_bad: false,
        heldout: None,
    }
}
