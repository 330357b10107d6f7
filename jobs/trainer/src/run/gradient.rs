//! Gradients as a whole.

use ff2_model::{Parameters, Tensor, Weights, is_trained};
use rayon::prelude::*;

/// Euclidean norm of all that is trained. Infinite or no number if one of them is.
pub(super) fn norm(grad: &Weights) -> f64 {
    let mut tensors = Vec::new();
    grad.visit("", &mut |name, tensor| {
        if is_trained(&name) {
            tensors.push(tensor);
        }
    });
    let square = |tensor: &&Tensor| tensor.data().iter().map(|x| f64::from(*x).powi(2)).sum();
    let squares: Vec<f64> = tensors.par_iter().map(square).collect();
    // In order of tensors, so that the sum does not depend on threads.
    squares.iter().sum::<f64>().sqrt()
}

pub(super) fn scale(grad: &mut Weights, factor: f32) {
    each(grad, |x| *x *= factor);
}

pub(super) fn clear(grad: &mut Weights) {
    each(grad, |x| *x = 0.0);
}

fn each(grad: &mut Weights, change: impl Fn(&mut f32) + Sync) {
    let mut tensors = Vec::new();
    grad.visit_mut("", &mut |_, tensor| tensors.push(tensor));
    tensors.into_par_iter().for_each(|tensor| tensor.data_mut().iter_mut().for_each(&change));
}
