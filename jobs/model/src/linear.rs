//! Products with weights. As in the files, a weight is [out, in].

use crate::{
    Tensor,
    view::{Into, matmul, matmul_f32, matmul_fp8},
};

/// [n, in] -> [n, out].
pub(crate) fn linear(x: &Tensor, weight: &Tensor) -> Tensor {
    let mut y = Tensor::zeros(&[x.rows(), weight.rows()]);
    match weight.fp8() {
        None => matmul(y.view_mut(), Into::Replace, 1.0, x.view(), weight.view().t()),
        Some(weight) => matmul_fp8(y.view_mut(), x.view(), weight),
    }
    y
}

/// Adds to the weight's gradient and returns the input's, [n, in].
pub(crate) fn linear_backward(x: &Tensor, weight: &Tensor, dy: &Tensor, dw: &mut Tensor) -> Tensor {
    matmul(dw.view_mut(), Into::Add, 1.0, dy.view().t(), x.view());
    let mut dx = Tensor::zeros(&[dy.rows(), weight.cols()]);
    matmul(dx.view_mut(), Into::Replace, 1.0, dy.view(), weight.view());
    dx
}

/// As [`linear`], of the numbers as they are in any precision.
pub(crate) fn linear_f32(x: &Tensor, weight: &Tensor) -> Tensor {
    let mut y = Tensor::zeros(&[x.rows(), weight.rows()]);
    matmul_f32(y.view_mut(), Into::Replace, 1.0, x.view(), weight.view().t());
    y
}
