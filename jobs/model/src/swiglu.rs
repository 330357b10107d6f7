//! The feed-forward block: down(silu(gate(x)) * up(x)) (Shazeer 2020).

use crate::{
    Tensor,
    linear::{linear, linear_backward},
    parameters::parameters,
    vector::{sigmoid, vectorized},
};

#[derive(Debug, Clone)]
pub(crate) struct SwiGlu {
    /// [inner, hidden]
    pub(crate) gate: Tensor,
    pub(crate) up: Tensor,
    /// [hidden, inner]
    pub(crate) down: Tensor,
}

parameters!(SwiGlu { gate: "gate_proj.weight", up: "up_proj.weight", down: "down_proj.weight" });

/// What the backward needs: the two inner products and what `down` got.
#[derive(Debug)]
pub(crate) struct Saved {
    gate: Tensor,
    up: Tensor,
    inner: Tensor,
}

impl SwiGlu {
    pub(crate) fn zeros(hidden: usize, inner: usize) -> Self {
        Self {
            gate: Tensor::zeros(&[inner, hidden]),
            up: Tensor::zeros(&[inner, hidden]),
            down: Tensor::zeros(&[hidden, inner]),
        }
    }

    /// [n, hidden] -> [n, hidden].
    pub(crate) fn forward(&self, x: &Tensor) -> (Tensor, Saved) {
        let (gate, up) = (linear(x, &self.gate), linear(x, &self.up));
        let mut inner = up.clone();
        vectorized(
            #[inline(always)]
            || {
                for (inner, gate) in inner.data_mut().iter_mut().zip(gate.data()) {
                    *inner *= gate * sigmoid(*gate);
                }
            },
        );
        (linear(&inner, &self.down), Saved { gate, up, inner })
    }

    pub(crate) fn backward(
        &self,
        x: &Tensor,
        saved: &Saved,
        dy: &Tensor,
        grad: &mut Self,
    ) -> Tensor {
        let mut d_gate = linear_backward(&saved.inner, &self.down, dy, &mut grad.down);
        let mut d_up = Tensor::zeros(d_gate.shape());
        let (gate, up) = (saved.gate.data(), saved.up.data());
        vectorized(
            #[inline(always)]
            || {
                let pairs = d_gate.data_mut().iter_mut().zip(d_up.data_mut());
                for ((d_gate, d_up), (gate, up)) in pairs.zip(gate.iter().zip(up)) {
                    let (d_inner, s) = (*d_gate, sigmoid(*gate));
                    *d_up = d_inner * gate * s;
                    *d_gate = d_inner * up * s * (1.0 + gate * (1.0 - s));
                }
            },
        );
        let mut dx = linear_backward(x, &self.gate, &d_gate, &mut grad.gate);
        dx.add(&linear_backward(x, &self.up, &d_up, &mut grad.up));
        dx
    }
}
