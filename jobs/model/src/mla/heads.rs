//! The attention itself, head by head, on views into the products: nothing is transposed or repeated.

use rayon::prelude::*;

use super::{Pass, score_scale};
use crate::{
    Tensor,
    vector::{dot, softmax, vectorized},
    view::{Into, View, ViewMut, matmul},
};

/// Queries, keys and values of all heads of all sequences.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads<'a> {
    pass: Pass<'a>,
    q: &'a Tensor,
    kv: &'a Tensor,
    k_rope: &'a Tensor,
}

/// Gradients of one head of one sequence.
#[derive(Debug)]
pub(super) struct HeadGradient {
    /// [tokens, nope + rope]
    pub(super) q: Tensor,
    /// [tokens, nope + v]
    pub(super) kv: Tensor,
    /// [tokens, rope], one part of the shared key's.
    pub(super) k_rope: Tensor,
}

/// Views of one head: [tokens, _] each.
struct Head<'a> {
    q_nope: View<'a>,
    q_rope: View<'a>,
    k_nope: View<'a>,
    k_rope: View<'a>,
    v: View<'a>,
}

impl<'a> Heads<'a> {
    pub(super) fn new(pass: Pass<'a>, q: &'a Tensor, kv: &'a Tensor, k_rope: &'a Tensor) -> Self {
        Self { pass, q, kv, k_rope }
    }

    fn head(&self, number: usize) -> Head<'a> {
        let (c, tokens) = (self.pass.config, self.pass.tokens);
        let (sequence, head) = (number / c.heads, number % c.heads);
        let (q_width, kv_width) = (c.qk_nope + c.qk_rope, c.qk_nope + c.v_head);
        let q = &self.q.data()[sequence * tokens * self.q.cols() + head * q_width..];
        let kv = &self.kv.data()[sequence * tokens * self.kv.cols() + head * kv_width..];
        let k_rope = &self.k_rope.data()[sequence * tokens * c.qk_rope..];
        Head {
            q_nope: View::new(q, tokens, c.qk_nope, self.q.cols()),
            q_rope: View::new(&q[c.qk_nope..], tokens, c.qk_rope, self.q.cols()),
            k_nope: View::new(kv, tokens, c.qk_nope, self.kv.cols()),
            k_rope: View::new(k_rope, tokens, c.qk_rope, c.qk_rope),
            v: View::new(&kv[c.qk_nope..], tokens, c.v_head, self.kv.cols()),
        }
    }

    /// Shares of attention, [batch, heads, tokens, tokens], and the heads' outputs, [n, heads * v].
    pub(super) fn attend(&self) -> (Vec<f32>, Tensor) {
        let (c, tokens) = (self.pass.config, self.pass.tokens);
        let scale = score_scale(c);
        let count = self.q.rows() / tokens * c.heads;
        let mut shares = vec![0.0; count * tokens * tokens];
        let mut outputs = vec![0.0; count * tokens * c.v_head];
        let work =
            shares.par_chunks_mut(tokens * tokens).zip(outputs.par_chunks_mut(tokens * c.v_head));
        work.enumerate().for_each(|(number, (shares, output))| {
            let head = self.head(number);
            let mut scores = |into, q: View<'_>, k: View<'_>| {
                matmul(ViewMut::new(shares, tokens, tokens, tokens), into, scale, q, k.t());
            };
            scores(Into::Replace, head.q_nope, head.k_nope);
            scores(Into::Add, head.q_rope, head.k_rope);
            causal_softmax(shares, tokens, 0);
            let shares = View::new(shares, tokens, tokens, tokens);
            matmul(
                ViewMut::new(output, tokens, c.v_head, c.v_head),
                Into::Replace,
                1.0,
                shares,
                head.v,
            );
        });
        let mut joined = Tensor::zeros(&[self.q.rows(), c.heads * c.v_head]);
        for (number, output) in outputs.chunks(tokens * c.v_head).enumerate() {
            put_head(&mut joined, output, number, c.heads, tokens);
        }
        (shares, joined)
    }

    /// Gradients of all heads, from that of their outputs, [n, heads * v].
    pub(super) fn backward(&self, shares: &[f32], dy: &Tensor) -> Vec<HeadGradient> {
        let (c, tokens) = (self.pass.config, self.pass.tokens);
        let scale = score_scale(c);
        let one = |(number, shares): (usize, &[f32])| {
            let head = self.head(number);
            let (sequence, at) = (number / c.heads, number % c.heads);
            let dy = &dy.data()[sequence * tokens * dy.cols() + at * c.v_head..];
            let dy = View::new(dy, tokens, c.v_head, c.heads * c.v_head);
            let mut d_scores = vec![0.0; tokens * tokens];
            matmul(
                ViewMut::new(&mut d_scores, tokens, tokens, tokens),
                Into::Replace,
                1.0,
                dy,
                head.v.t(),
            );
            softmax_backward(&mut d_scores, shares, tokens, scale);
            let d_scores = View::new(&d_scores, tokens, tokens, tokens);
            let shares = View::new(shares, tokens, tokens, tokens);
            let mut grad = HeadGradient {
                q: Tensor::zeros(&[tokens, c.qk_nope + c.qk_rope]),
                kv: Tensor::zeros(&[tokens, c.qk_nope + c.v_head]),
                k_rope: Tensor::zeros(&[tokens, c.qk_rope]),
            };
            let columns =
                |out: &mut Tensor, from: usize, width: usize, a: View<'_>, b: View<'_>| {
                    let stride = out.cols();
                    let out = ViewMut::new(&mut out.data_mut()[from..], tokens, width, stride);
                    matmul(out, Into::Replace, 1.0, a, b);
                };
            columns(&mut grad.q, 0, c.qk_nope, d_scores, head.k_nope);
            columns(&mut grad.q, c.qk_nope, c.qk_rope, d_scores, head.k_rope);
            columns(&mut grad.kv, 0, c.qk_nope, d_scores.t(), head.q_nope);
            columns(&mut grad.kv, c.qk_nope, c.v_head, shares.t(), dy);
            columns(&mut grad.k_rope, 0, c.qk_rope, d_scores.t(), head.q_rope);
            grad
        };
        shares.par_chunks(tokens * tokens).enumerate().map(one).collect()
    }
}

/// Writes one head's [tokens, width] to its columns of all heads' [n, heads * width].
pub(super) fn put_head(all: &mut Tensor, head: &[f32], number: usize, heads: usize, tokens: usize) {
    let width = all.cols() / heads;
    for (token, row) in head.chunks(width).enumerate() {
        let into = all.row_mut(number / heads * tokens + token);
        into[number % heads * width..][..width].copy_from_slice(row);
    }
}

/// Softmax of rows of scores, where row i sees `past` columns and those up to its own.
pub(crate) fn causal_softmax(scores: &mut [f32], columns: usize, past: usize) {
    vectorized(
        #[inline(always)]
        || {
            for (row, scores) in scores.chunks_mut(columns).enumerate() {
                let (seen, later) = scores.split_at_mut(past + row + 1);
                softmax(seen);
                later.fill(0.0);
            }
        },
    );
}

/// From gradients of shares to those of unscaled scores, in place: p (d - sum(p d)) * scale.
fn softmax_backward(d: &mut [f32], shares: &[f32], columns: usize, scale: f32) {
    vectorized(
        #[inline(always)]
        || {
            for (d, p) in d.chunks_mut(columns).zip(shares.chunks(columns)) {
                let along = dot(d, p);
                d.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d - along) * scale);
            }
        },
    );
}
