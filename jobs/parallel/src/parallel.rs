//! The step of a rank.

use std::time::{Duration, Instant};

use ff2_collectives::Communicator;
use ff2_model::{Among, Exchange, Loss, Model, Parameters, Tokens, Weights};

use crate::{
    ParallelError, Plan, Settings,
    buckets::{Family, Filling},
    experts::ExpertRanks,
    layout::Layout,
    optimizer::Moments,
};

/// A rank of several that train one model. All of them make the same calls in the same order.
#[derive(Debug)]
pub struct Parallel {
    plan: Plan,
    settings: Settings,
    world: Communicator,
    /// None: each rank has all experts.
    pub(crate) experts: Option<ExpertRanks>,
    pub(crate) families: Vec<Family>,
    pub(crate) moments: Vec<Moments>,
    /// Of this rank, before sums.
    gradient: Weights,
    pub(crate) steps: i32,
}

/// What a step found, the same on all ranks but for the sums, of which each has its part.
#[derive(Debug)]
pub struct Gradients {
    /// The means over all ranks; loads are sums.
    pub loss: Loss,
    /// Euclidean norm of the mean gradient of all ranks, before clipping.
    pub norm: f64,
    /// How long this rank waited for sums when its backward was done.
    pub waited: Duration,
    sums: Vec<Vec<Vec<f32>>>,
    /// Turns sums into means.
    scale: f32,
}

impl Parallel {
    /// Takes from the model the experts that other ranks hold by the plan. All ranks must have begun with equal
    /// weights.
    ///
    /// # Errors
    /// Experts that the plan's ranks do not divide; a rank with another model; a rank that is gone.
    pub fn new(
        world: Communicator,
        plan: Plan,
        settings: Settings,
        model: &mut Model,
    ) -> Result<Self, ParallelError> {
        plan.check(model.config(), world.ranks())?;
        same_models(&world, model)?;
        let Plan { expert_ranks, zero1, bucket, .. } = plan;
        model.weights_mut().keep_experts(world.rank() % expert_ranks, expert_ranks)?;
        let weights = model.weights();
        let family = |ranks: Communicator, belongs: &dyn Fn(&str) -> bool| {
            let layout = Layout::new(weights, bucket, belongs);
            let scattered = zero1 && ranks.ranks() > 1;
            Family { ranks, layout, scattered }
        };
        let (experts, families) = match expert_ranks {
            1 => (None, vec![family(world.split(|_| 0), &|_| true)]),
            _ => {
                let share = world.split(|rank| rank / expert_ranks);
                // Who holds the same experts sums their gradients; each has seen its group's tokens.
                let same = world.split(|rank| rank % expert_ranks);
                let rest = family(world.split(|_| 0), &|name| !is_expert(name));
                (Some(ExpertRanks(share)), vec![rest, family(same, &is_expert)])
            }
        };
        let moments = families.iter().map(Moments::new).collect();
        let mut gradient = weights.clone();
        clear(&mut gradient);
        Ok(Self { plan, settings, world, experts, families, moments, gradient, steps: 0 })
    }

    pub fn world(&self) -> &Communicator {
        &self.world
    }

    /// The ranks that share the experts: what a forward of the model needs beside this.
    pub fn exchange(&self) -> Option<&dyn Exchange> {
        self.experts.as_ref().map(|experts| experts as &dyn Exchange)
    }

    /// Steps so far.
    pub fn steps(&self) -> i32 {
        self.steps
    }

    /// f32 of moments that this rank keeps.
    pub fn moments_len(&self) -> usize {
        self.moments.iter().map(Moments::len).sum()
    }

    /// Loss and gradients of this rank's part of the batch, in pieces that are passed one after the other, summed over
    /// all ranks. Every rank gives as many sequences, so that the mean over ranks is that over the batch.
    ///
    /// # Errors
    /// Sequences without a next token; a rank that is gone.
    pub fn gradients(
        &mut self,
        model: &Model,
        batches: &[Tokens],
        mtp_weight: f32,
    ) -> Result<Gradients, ParallelError> {
        let Some((last, before)) = batches.split_last() else {
            return Err(ParallelError::NoBatch);
        };
        clear(&mut self.gradient);
        let exchange = self.experts.as_ref().map(|experts| experts as &dyn Exchange);
        let gradient = &mut self.gradient;
        let mut losses = Vec::new();
        for tokens in before {
            let among = Among { exchange, ready: &mut |_, _| {} };
            losses.push(model.step_among(tokens, mtp_weight, gradient, among)?);
        }
        let overlap = self.plan.overlap;
        let mut fillings: Vec<_> =
            self.families.iter().map(|family| Filling::new(family, overlap)).collect();
        let mut ready = |name: &str, part: &dyn Parameters| {
            part.visit(name, &mut |name, tensor| {
                fillings.iter_mut().for_each(|filling| filling.take(&name, tensor));
            });
        };
        let among = Among { exchange, ready: &mut ready };
        losses.push(model.step_among(last, mtp_weight, gradient, among)?);
        let begun = Instant::now();
        let sums = fillings.into_iter().map(Filling::wait).collect::<Result<Vec<_>, _>>()?;
        let waited = begun.elapsed();
        let scale = 1.0 / (self.world.ranks() * batches.len()) as f32;
        let (loss, norm) = self.agree(&losses, &sums, scale)?;
        Ok(Gradients { loss, norm, waited, sums, scale })
    }

    /// The loss of all ranks and the norm of the mean gradient: each rank counts its own part of each bucket, once.
    fn agree(
        &self,
        losses: &[Loss],
        sums: &[Vec<Vec<f32>>],
        scale: f32,
    ) -> Result<(Loss, f64), ParallelError> {
        let mut squares = 0.0;
        for (family, sums) in self.families.iter().zip(sums) {
            for (bucket, sums) in sums.iter().enumerate() {
                let (own, summed) = (family.own(bucket), family.summed(bucket));
                let own = &sums[own.start - summed.start..own.end - summed.start];
                squares += own.iter().map(|&g| f64::from(g * scale).powi(2)).sum::<f64>();
            }
        }
        let mean = |of: fn(&Loss) -> f64| losses.iter().map(of).sum::<f64>() / losses.len() as f64;
        let mut own = vec![squares, mean(|loss| loss.main), mean(|loss| loss.mtp)];
        // Whole numbers below 2^53 are exact in f64.
        let layers = losses.iter().map(|loss| loss.loads.len()).max().unwrap_or(0);
        let experts = losses[0].loads.first().map_or(0, Vec::len);
        let load = |layer: usize, expert: usize| {
            losses
                .iter()
                .filter_map(|loss| loss.loads.get(layer))
                .map(|load| load[expert])
                .sum::<u64>()
        };
        own.extend((0..layers * experts).map(|at| load(at / experts, at % experts) as f64));
        let all = self.world.share(own).wait()?;
        let total = |at: usize| all.iter().map(|of_rank| of_rank[at]).sum::<f64>();
        let ranks = all.len() as f64;
        let loads = (0..layers).map(|layer| {
            (0..experts).map(|expert| total(3 + layer * experts + expert) as u64).collect()
        });
        let loss = Loss { main: total(1) / ranks, mtp: total(2) / ranks, loads: loads.collect() };
        Ok((loss, total(0).sqrt()))
    }

    /// Moves the weights against the gradient, shortened to the norm `clip` (0: as it is).
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn update(
        &mut self,
        model: &mut Model,
        gradients: Gradients,
        learning_rate: f32,
        clip: f64,
    ) -> Result<(), ParallelError> {
        let Gradients { norm, mut sums, scale, .. } = gradients;
        let shorten = if clip > 0.0 && norm > clip { clip / norm } else { 1.0 };
        let scale = scale * shorten as f32;
        sums.iter_mut().flatten().flatten().for_each(|g| *g *= scale);
        self.steps += 1;
        let update = self.settings.update(self.steps, learning_rate);
        for ((family, moments), sums) in self.families.iter().zip(&mut self.moments).zip(&sums) {
            moments.update(family, model.weights_mut(), sums, &update)?;
        }
        Ok(())
    }

    /// The orderly end: waits for all ranks.
    ///
    /// # Errors
    /// A rank that failed before.
    pub fn close(&self) -> Result<(), ParallelError> {
        Ok(self.world.close()?)
    }
}

/// Routed experts; shared ones are on every rank.
pub(crate) fn is_expert(name: &str) -> bool {
    name.contains(".mlp.experts.")
}

fn clear(gradient: &mut Weights) {
    gradient.visit_mut("", &mut |_, tensor| tensor.data_mut().fill(0.0));
}

fn same_models(world: &Communicator, model: &Model) -> Result<(), ParallelError> {
    let lens = world.share(vec![model.weights().len() as u64]).wait()?;
    let ours = lens[0][0];
    match lens.iter().position(|len| len[0] != ours) {
        Some(rank) => Err(ParallelError::Models { rank, theirs: lens[rank][0], ours }),
        None => Ok(()),
    }
}
