//! DeepSeekMoE: experts that the gate chooses per token, beside shared ones that all tokens pass
//! (Dai et al. 2024).

mod travel;

use rayon::prelude::*;

use crate::{
    Exchange, ModelConfig, ModelError, Tensor,
    gate::{Gate, Routing},
    parameters::parameters,
    swiglu::{self, SwiGlu},
    vector::{dot, vectorized},
};
use travel::{Arrived, from_experts, to_experts};

#[derive(Debug, Clone)]
pub(crate) struct Moe {
    pub(crate) gate: Gate,
    /// None: another rank holds it.
    pub(crate) experts: Vec<Option<SwiGlu>>,
    /// All shared experts as one, as wide as they are together.
    pub(crate) shared: Option<SwiGlu>,
}

parameters!(Moe { gate: "gate", experts: "experts", shared: "shared_experts" });

#[derive(Debug)]
pub(crate) struct Saved {
    routing: Routing,
    /// The places of the routing that each of all experts got.
    places: Vec<Vec<usize>>,
    /// What each made of them.
    outputs: Vec<Tensor>,
    /// What the experts held here got, from all ranks, and what their backward needs.
    arrived: Arrived,
    passed: Vec<swiglu::Saved>,
    shared: Option<swiglu::Saved>,
}

impl Saved {
    /// Tokens of this rank that each expert got.
    pub(crate) fn load(&self) -> Vec<u64> {
        self.places.iter().map(|places| places.len() as u64).collect()
    }
}

/// Places of the routing by expert.
fn by_expert(routing: &Routing, experts: usize) -> Vec<Vec<usize>> {
    let mut places = vec![Vec::new(); experts];
    for (place, &expert) in routing.experts.iter().enumerate() {
        places[expert].push(place);
    }
    places
}

/// The rows of x that each expert gets.
fn dispatch(x: &Tensor, places: &[Vec<usize>], per_token: usize) -> Vec<Tensor> {
    let rows = |places: &Vec<usize>| {
        let rows = places.iter().flat_map(|place| x.row(place / per_token)).copied().collect();
        Tensor::new(&[places.len(), x.cols()], rows).expect("as many rows as places")
    };
    places.iter().map(rows).collect()
}

/// Adds what the experts made of each row to its token, times a weight a place.
fn combine(
    out: &mut Tensor,
    places: &[Vec<usize>],
    outputs: &[Tensor],
    weights: Option<&[f32]>,
    per_token: usize,
) {
    for (places, output) in places.iter().zip(outputs) {
        for (row, &place) in places.iter().enumerate() {
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
                .map(|_| Some(SwiGlu::zeros(config.hidden, config.expert_inner)))
                .collect(),
            shared: (shared > 0).then(|| SwiGlu::zeros(config.hidden, shared)),
        }
    }

    /// [n, hidden] -> [n, hidden].
    pub(crate) fn forward(
        &self,
        config: &ModelConfig,
        exchange: Option<&dyn Exchange>,
        x: &Tensor,
    ) -> Result<(Tensor, Saved), ModelError> {
        let routing = self.gate.route(config, x);
        let k = config.experts_per_token;
        let places = by_expert(&routing, self.experts.len());
        let held: Vec<&SwiGlu> = self.experts.iter().flatten().collect();
        let arrived = to_experts(exchange, held.len(), dispatch(x, &places, k))?;
        let made = held.par_iter().zip(&arrived.rows).map(|(expert, x)| expert.forward(x));
        let (made, passed) = made.unzip();
        let outputs = from_experts(exchange, &arrived, made, &places)?;
        let (mut y, shared) = match self.shared.as_ref().map(|shared| shared.forward(x)) {
            Some((y, saved)) => (y, Some(saved)),
            None => (Tensor::zeros(x.shape()), None),
        };
        combine(&mut y, &places, &outputs, Some(&routing.weights), k);
        Ok((y, Saved { routing, places, outputs, arrived, passed, shared }))
    }

    pub(crate) fn backward(
        &self,
        config: &ModelConfig,
        exchange: Option<&dyn Exchange>,
        (x, saved): (&Tensor, &Saved),
        dy: &Tensor,
        grad: &mut Self,
    ) -> Result<Tensor, ModelError> {
        let k = config.experts_per_token;
        let Saved { routing, places, outputs, .. } = saved;
        let work = places.par_iter().zip(outputs);
        let (d_outputs, d_by_expert): (Vec<_>, Vec<_>) =
            work.map(|(places, output)| d_output(routing, dy, places, output, k)).unzip();
        let mut d_weights = vec![0.0; routing.weights.len()];
        for (places, d) in places.iter().zip(&d_by_expert) {
            places.iter().zip(d).for_each(|(&place, d)| d_weights[place] = *d);
        }
        let held = self.experts.iter().flatten().count();
        let d_outputs = to_experts(exchange, held, d_outputs)?;
        let experts = self.experts.iter().flatten().zip(grad.experts.iter_mut().flatten());
        let experts: Vec<_> = experts.zip(&saved.passed).collect();
        let d_rows = experts
            .into_par_iter()
            .zip(&saved.arrived.rows)
            .zip(&d_outputs.rows)
            .map(|((((expert, grad), passed), x), d)| expert.backward(x, passed, d, grad))
            .collect();
        let d_rows = from_experts(exchange, &saved.arrived, d_rows, places)?;
        let mut dx = self.gate.backward(config, x, routing, &d_weights, &mut grad.gate);
        combine(&mut dx, places, &d_rows, None, k);
        if let (Some(shared), Some(passed), Some(grad)) =
            (&self.shared, &saved.shared, &mut grad.shared)
        {
            dx.add(&shared.backward(x, passed, dy, grad));
        }
        Ok(dx)
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

/// The gradients of what one expert made of its rows, and of the weights of their places.
fn d_output(
    routing: &Routing,
    dy: &Tensor,
    places: &[usize],
    output: &Tensor,
    per_token: usize,
) -> (Tensor, Vec<f32>) {
    let mut d_output = Tensor::zeros(output.shape());
    let mut d_weights = vec![0.0; places.len()];
    vectorized(
        #[inline(always)]
        || {
            for (row, &place) in places.iter().enumerate() {
                let (dy, weight) = (dy.row(place / per_token), routing.weights[place]);
                d_weights[row] = dot(dy, output.row(row));
                let d_row = d_output.row_mut(row).iter_mut();
                d_row.zip(dy).for_each(|(d, dy)| *d = weight * dy);
            }
        },
    );
    (d_output, d_weights)
}
