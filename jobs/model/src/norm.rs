//! RMSNorm: y = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019).

use crate::{
    Tensor,
    vector::{dot, vectorized},
};

/// Normalises rows: [n, d] -> [n, d].
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Tensor {
    let mut y = Tensor::zeros(&[x.rows(), x.cols()]);
    vectorized(
        #[inline(always)]
        || {
            for row in 0..x.rows() {
                let x = x.row(row);
                let scale = inverse_rms(x, eps);
                for ((y, x), w) in y.row_mut(row).iter_mut().zip(x).zip(weight.data()) {
                    *y = x * scale * w;
                }
            }
        },
    );
    y
}

/// Adds to the weight's gradient and returns the input's.
pub(crate) fn rms_norm_backward(
    x: &Tensor,
    weight: &Tensor,
    eps: f32,
    dy: &Tensor,
    dw: &mut Tensor,
) -> Tensor {
    let mut dx = Tensor::zeros(&[x.rows(), x.cols()]);
    let dw = dw.data_mut();
    vectorized(
        #[inline(always)]
        || {
            for row in 0..x.rows() {
                let (x, dy, dx) = (x.row(row), dy.row(row), dx.row_mut(row));
                let scale = inverse_rms(x, eps);
                for (at, dx) in dx.iter_mut().enumerate() {
                    dw[at] += dy[at] * x[at] * scale;
                    *dx = dy[at] * weight.data()[at];
                }
                // d(1/rms)/dx = -x / (d rms^3)
                let along = dot(dx, x) * scale * scale * scale / x.len() as f32;
                for (dx, x) in dx.iter_mut().zip(x) {
                    *dx = *dx * scale - along * x;
                }
            }
        },
    );
    dx
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}
