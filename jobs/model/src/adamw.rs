//! AdamW (Loshchilov and Hutter 2019).

use rayon::prelude::*;

use crate::{ModelConfig, Parameters, Tensor, Weights, is_trained, vector::vectorized};

/// The optimizer's settings and its two moments of the gradients.
#[derive(Debug, Clone)]
pub struct AdamW {
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// Applies to matrices; norms are left alone.
    pub weight_decay: f32,
    steps: i32,
    first: Weights,
    second: Weights,
}

impl AdamW {
    /// With the settings of DeepSeek-V3 (section 4.2 of its report).
    pub fn new(config: &ModelConfig) -> Self {
        let zeros = Weights::zeros(config);
        Self {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            steps: 0,
            first: zeros.clone(),
            second: zeros,
        }
    }

    /// Steps so far.
    pub fn steps(&self) -> i32 {
        self.steps
    }

    /// Means of the gradients and of their squares, both under the names of the weights: what a checkpoint keeps.
    pub fn moments(&self) -> (&Weights, &Weights) {
        (&self.first, &self.second)
    }

    /// Goes on where another run was after so many steps; `moments_mut` has what it kept.
    pub fn moments_mut(&mut self, steps: i32) -> (&mut Weights, &mut Weights) {
        self.steps = steps;
        (&mut self.first, &mut self.second)
    }

    /// One step against the gradient; `weights` and `grad` are of the configuration that made this.
    pub fn step(&mut self, weights: &mut Weights, grad: &Weights, learning_rate: f32) {
        self.steps += 1;
        let Self { beta1, beta2, eps, weight_decay, steps, .. } = *self;
        let update = Update { beta1, beta2, eps, weight_decay, learning_rate, steps };
        let mut work = Vec::new();
        let (mut first, mut second) = (list_mut(&mut self.first), list_mut(&mut self.second));
        let mut grads = Vec::new();
        grad.visit("", &mut |_, tensor| grads.push(tensor));
        let mut names = Vec::new();
        let mut all = Vec::new();
        weights.visit_mut("", &mut |name, tensor| {
            names.push(name);
            all.push(tensor);
        });
        let moments = first.drain(..).zip(second.drain(..));
        for (((name, w), g), (m, v)) in names.iter().zip(all).zip(grads).zip(moments) {
            if is_trained(name) {
                work.push((w, g, m, v));
            }
        }
        work.into_par_iter().for_each(|(w, g, m, v)| {
            let is_matrix = w.shape().len() > 1;
            update.apply(is_matrix, w.data_mut(), g.data(), m.data_mut(), v.data_mut());
        });
    }
}

/// One step of AdamW on numbers anywhere: equation by equation as above.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// Applies to matrices.
    pub weight_decay: f32,
    pub learning_rate: f32,
    /// This one counted.
    pub steps: i32,
}

impl Update {
    /// Weights, their gradients, and the two moments: as many of each.
    pub fn apply(&self, is_matrix: bool, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        let Self { beta1, beta2, eps, learning_rate, .. } = *self;
        let rate = learning_rate / (1.0 - beta1.powi(self.steps));
        let correct2 = (1.0 - beta2.powi(self.steps)).sqrt();
        let decay = if is_matrix { 1.0 - learning_rate * self.weight_decay } else { 1.0 };
        vectorized(
            #[inline(always)]
            || {
                for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    *w = *w * decay - rate * *m / (v.sqrt() / correct2 + eps);
                }
            },
        );
    }
}

fn list_mut(weights: &mut Weights) -> Vec<&mut Tensor> {
    let mut all = Vec::new();
    weights.visit_mut("", &mut |_, tensor| all.push(tensor));
    all
}
