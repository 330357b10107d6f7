//! DeepSeekMoE: experts that the gate chooses per token, beside shared ones that all tokens pass
//! (Dai et al. 2024).

use rayon::prelude::*;

use crate::{
    ModelConfig, Tensor,
    gate::{Gate, Routing},
    parameters::parameters,
    swiglu::{self, SwiGlu},
    vector::{dot, vectorized},
};

#[derive(Debug, Clone)]
pub(crate) struct Moe {
    pub(crate) gate: Gate,
    pub(crate) experts: Vec<SwiGlu>,
    /// All shared experts as one, as wide as they are together.
    pub(crate) shared: Option<SwiGlu>,
}

parameters!(Moe { gate: "gate", experts: "experts", shared: "shared_experts" });

#[derive(Debug)]
pub(crate) struct Saved {
    routing: Routing,
    /// One an expert.
    shares: Vec<Share>,
    passed: Vec<(Tensor, swiglu::Saved)>,
    shared: Option<swiglu::Saved>,
}

impl Saved {
    /// Tokens that each expert got.
    pub(crate) fn load(&self) -> Vec<u64> {
        self.shares.iter().map(|share| share.places.len() as u64).collect()
    }
}

/// What one expert got: its rows, and for each the place in the routing it came from.
#[derive(Debug)]
struct Share {
    places: Vec<usize>,
    x: Tensor,
}

/// Brings the rows of x to the experts. With experts on several ranks, this and [`combine`] are what travels.
fn dispatch(x: &Tensor, routing: &Routing, experts: usize) -> Vec<Share> {
    let per_token = routing.experts.len() / x.rows();
    let mut places = vec![Vec::new(); experts];
    for (place, &expert) in routing.experts.iter().enumerate() {
        places[expert].push(place);
    }
    let share = |places: Vec<usize>| {
        let rows = places.iter().flat_map(|place| x.row(place / per_token)).copied().collect();
        let x = Tensor::new(&[places.len(), x.cols()], rows).expect("as many rows as places");
        Share { places, x }
    };
    places.into_iter().map(share).collect()
}

/// Adds what the experts made of each row to its token, times a weight a place.
fn combine(
    out: &mut Tensor,
    shares: &[Share],
    outputs: &[&Tensor],
    weights: Option<&[f32]>,
    per_token: usize,
) {
    for (share, output) in shares.iter().zip(outputs) {
        for (row, &place) in share.places.iter().enumerate() {
            let weight = weights.map_or(1.0, |weights| weights[place]);
            let sums = out.row_mut(place / per_token);
            sums.iter_mut().zip(output.row(row)).for_each(|(sum, y)| *sum += weight * y);
        }
    }
}

impl Moe {
    pub(crate) fn zeros(config: &ModelConfig) -> Self {
        let shared = config.shared_experts * config.expert_inner;
        Self {
            gate: Gate::zeros(config),
            experts: (0..config.routed_experts)
                .map(|_| SwiGlu::zeros(config.hidden, config.expert_inner))
                .collect(),
            shared: (shared > 0).then(|| SwiGlu::zeros(config.hidden, shared)),
        }
    }

    /// [n, hidden] -> [n, hidden].
    pub(crate) fn forward(&self, config: &ModelConfig, x: &Tensor) -> (Tensor, Saved) {
        let routing = self.gate.route(config, x);
        let shares = dispatch(x, &routing, self.experts.len());
        let passed: Vec<_> = self
            .experts
            .par_iter()
            .zip(&shares)
            .map(|(expert, share)| expert.forward(&share.x))
            .collect();
        let (mut y, shared) = match self.shared.as_ref().map(|shared| shared.forward(x)) {
            Some((y, saved)) => (y, Some(saved)),
            None => (Tensor::zeros(x.shape()), None),
        };
        let outputs: Vec<_> = passed.iter().map(|(output, _)| output).collect();
        combine(&mut y, &shares, &outputs, Some(&routing.weights), config.experts_per_token);
        (y, Saved { routing, shares, passed, shared })
    }

    pub(crate) fn backward(
        &self,
        config: &ModelConfig,
        x: &Tensor,
        saved: &Saved,
        dy: &Tensor,
        grad: &mut Self,
    ) -> Tensor {
        let k = config.experts_per_token;
        let routing = &saved.routing;
        let work =
            self.experts.par_iter().zip(&mut grad.experts).zip(&saved.shares).zip(&saved.passed);
        let (d_rows, d_expert_weights): (Vec<_>, Vec<_>) = work
            .map(|(((expert, grad), share), (output, passed))| {
                let mut d_output = Tensor::zeros(output.shape());
                let mut d_weights = vec![0.0; share.places.len()];
                vectorized(
                    #[inline(always)]
                    || {
                        for (row, &place) in share.places.iter().enumerate() {
                            let (dy, weight) = (dy.row(place / k), routing.weights[place]);
                            d_weights[row] = dot(dy, output.row(row));
                            d_output
                                .row_mut(row)
                                .iter_mut()
                                .zip(dy)
                                .for_each(|(d, dy)| *d = weight * dy);
                        }
                    },
                );
                (expert.backward(&share.x, passed, &d_output, grad), d_weights)
            })
            .unzip();
        let mut d_weights = vec![0.0; routing.weights.len()];
        for (share, d) in saved.shares.iter().zip(&d_expert_weights) {
            share.places.iter().zip(d).for_each(|(&place, d)| d_weights[place] = *d);
        }
        let mut dx = self.gate.backward(config, x, routing, &d_weights, &mut grad.gate);
        combine(&mut dx, &saved.shares, &d_rows.iter().collect::<Vec<_>>(), None, k);
        if let (Some(shared), Some(passed), Some(grad)) =
            (&self.shared, &saved.shared, &mut grad.shared)
        {
            dx.add(&shared.backward(x, passed, dy, grad));
        }
        dx
    }

    /// Moves the gate's biases towards an equal load: b += speed * sign(mean - load) (Wang et al. 2024).
    pub(crate) fn balance(&mut self, load: &[u64], speed: f32) {
        let Some(bias) = &mut self.gate.bias else { return };
        let (total, experts): (u64, u64) = (load.iter().sum(), load.len() as u64);
        for (bias, &load) in bias.data_mut().iter_mut().zip(load) {
            // In whole numbers: sums over ranks must give the same sign on each.
            match (load * experts).cmp(&total) {
                std::cmp::Ordering::Less => *bias += speed,
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Greater => *bias -= speed,
            }
        }
    }
}
