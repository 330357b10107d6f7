//! One step: gradients of some batches, their sum over ranks, clipping, AdamW, balance of the experts.

use ff2_model::{Model, Weights};
use ff2_parallel::{Gradients, Parallel};

use super::{Optimizer, Training, gradient};
use crate::{config::RunConfig, data::Loader};

/// What a step did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Done {
    /// Means over the batches, in nats a token.
    pub(crate) loss: f64,
    pub(crate) mtp: f64,
    pub(crate) learning_rate: f64,
    /// Before clipping.
    pub(crate) grad_norm: f64,
    /// Tokens of all batches.
    pub(crate) tokens: u64,
    /// Tokens that each expert got, by layer.
    pub(crate) loads: Vec<Vec<u64>>,
    /// The loss or a gradient was no number, so nothing was changed.
    pub(crate) is_bad: bool,
}

impl Done {
    /// Of the most loaded expert of all layers, how far it is above the mean, as a share of that (MaxVio; Wang et al.
    /// 2024). None of a model without experts.
    pub(crate) fn max_violation(&self) -> Option<f64> {
        let of_layer = |load: &Vec<u64>| {
            let mean = load.iter().sum::<u64>() as f64 / load.len() as f64;
            load.iter().max().map_or(0.0, |max| *max as f64 / mean - 1.0)
        };
        self.loads.iter().map(of_layer).reduce(f64::max)
    }

    /// Of all choices of experts, the share of each expert; mean over the layers.
    pub(crate) fn expert_shares(&self) -> Vec<f64> {
        let experts = self.loads.first().map_or(0, Vec::len);
        let share = |expert: usize| {
            let of_layer = |load: &Vec<u64>| load[expert] as f64 / load.iter().sum::<u64>() as f64;
            self.loads.iter().map(of_layer).sum::<f64>() / self.loads.len() as f64
        };
        (0..experts).map(share).collect()
    }
}

pub(super) struct Step<'a> {
    config: &'a RunConfig,
    /// Memory of the last step's gradients.
    spare: Option<Weights>,
}

/// Gradients before they are applied.
enum Found {
    /// Sums over the batches of a rank that has the whole model.
    Whole(Weights),
    /// Over those of all ranks.
    Divided(Gradients),
}

impl<'a> Step<'a> {
    pub(super) fn new(config: &'a RunConfig) -> Self {
        Self { config, spare: None }
    }

    /// None if it was `interrupted` before a batch; then `training` is as before.
    ///
    /// # Errors
    /// Data that cannot be read, and more bad steps in a row than the configuration bears.
    pub(super) fn run(
        &mut self,
        training: &mut Training,
        loader: &mut Loader,
        interrupted: &dyn Fn() -> bool,
    ) -> anyhow::Result<Option<Done>> {
        let (c, data) = (self.config, &self.config.data);
        let mut done = Done {
            loss: 0.0,
            mtp: 0.0,
            learning_rate: c.optimizer.learning_rate * c.schedule.share(training.step, c.steps),
            grad_norm: 0.0,
            tokens: (data.batch * data.sequence * data.accumulate) as u64,
            loads: Vec::new(),
            is_bad: false,
        };
        let found = match &mut training.optimizer {
            Optimizer::Whole(_) => self.alone(&training.model, loader, &mut done, interrupted)?,
            Optimizer::Divided(parallel) => {
                Some(self.together(parallel, &training.model, loader, &mut done)?)
            }
        };
        let Some(found) = found else { return Ok(None) };
        self.update(training, &mut done, found)?;
        training.step += 1;
        training.position += (data.batch * data.accumulate) as u64;
        training.tokens += done.tokens;
        Ok(Some(done))
    }

    fn alone(
        &mut self,
        model: &Model,
        loader: &mut Loader,
        done: &mut Done,
        interrupted: &dyn Fn() -> bool,
    ) -> anyhow::Result<Option<Found>> {
        let accumulate = self.config.data.accumulate;
        let mut grad = self.spare.take().unwrap_or_else(|| Weights::zeros(model.config()));
        gradient::clear(&mut grad);
        for _ in 0..accumulate {
            if interrupted() {
                return Ok(None);
            }
            let tokens = loader.next()?;
            let loss = model.step(&tokens, self.config.loss.mtp_weight, &mut grad)?;
            done.loss += loss.main / accumulate as f64;
            done.mtp += loss.mtp / accumulate as f64;
            add(&mut done.loads, loss.loads);
        }
        done.grad_norm = gradient::norm(&grad) * (1.0 / accumulate as f64);
        Ok(Some(Found::Whole(grad)))
    }

    /// Not interrupted: ranks decide between steps, all alike.
    fn together(
        &self,
        parallel: &mut Parallel,
        model: &Model,
        loader: &mut Loader,
        done: &mut Done,
    ) -> anyhow::Result<Found> {
        let batches = (0..self.config.data.accumulate).map(|_| loader.next());
        let batches = batches.collect::<Result<Vec<_>, _>>()?;
        let mut found = parallel.gradients(model, &batches, self.config.loss.mtp_weight)?;
        (done.loss, done.mtp, done.grad_norm) = (found.loss.main, found.loss.mtp, found.norm);
        done.loads = std::mem::take(&mut found.loss.loads);
        Ok(Found::Divided(found))
    }

    fn update(
        &mut self,
        training: &mut Training,
        done: &mut Done,
        found: Found,
    ) -> anyhow::Result<()> {
        let c = self.config;
        done.is_bad = !(done.loss.is_finite() && done.grad_norm.is_finite());
        if done.is_bad {
            training.bad_steps += 1;
            anyhow::ensure!(
                training.bad_steps <= c.loss.bad_steps_max,
                "step {}: loss {}, gradient norm {}, the {}th step in a row that is no number (loss.bad_steps_max is \
                 {}); go on from an earlier checkpoint with --resume-from and a lower learning rate",
                training.step,
                done.loss,
                done.grad_norm,
                training.bad_steps,
                c.loss.bad_steps_max,
            );
            return Ok(());
        }
        training.bad_steps = 0;
        let (rate, limit) = (done.learning_rate as f32, c.optimizer.clip);
        match (&mut training.optimizer, found) {
            (Optimizer::Divided(parallel), Found::Divided(found)) => {
                parallel.update(&mut training.model, found, rate, limit)?;
            }
            (Optimizer::Whole(adamw), Found::Whole(mut grad)) => {
                let is_long = limit > 0.0 && done.grad_norm > limit;
                let clip = if is_long { limit / done.grad_norm } else { 1.0 };
                let factor = (1.0 / c.data.accumulate as f64 * clip) as f32;
                if factor != 1.0 {
                    gradient::scale(&mut grad, factor);
                }
                adamw.step(training.model.weights_mut(), &grad, rate);
                self.spare = Some(grad);
            }
            _ => unreachable!("the gradients were made for this optimizer"),
        }
        training.model.balance(&done.loads, c.loss.balance_speed)?;
        Ok(())
    }
}

fn add(sums: &mut Vec<Vec<u64>>, loads: Vec<Vec<u64>>) {
    if sums.is_empty() {
        *sums = loads;
    } else {
        for (sums, loads) in sums.iter_mut().zip(loads) {
            sums.iter_mut().zip(loads).for_each(|(sum, load)| *sum += load);
        }
    }
}
