//! Attention of new tokens to cached ones in the absorbed form (DeepSeek-V2 report, appendix C): the key's product is
//! moved to the query and the value's behind the sum, so no key or value of a cached token is ever made.

use rayon::prelude::*;

use crate::{
    Tensor,
    cache::{LayerCache, Sequence},
    linear::linear,
    mla::{Mla, Pass, causal_softmax, score_scale},
    view::{Into, View, matmul},
};

impl Mla {
    /// [n, hidden] -> [n, hidden] of `pass.tokens` new tokens a sequence; the cache grows by them.
    pub(crate) fn decode(&self, pass: Pass<'_>, x: &Tensor, cache: &mut LayerCache) -> Tensor {
        let (q, _) = self.queries(pass, x);
        cache.append(&self.latent(pass, x));
        let c = pass.config;
        let jobs: Vec<_> = (0..cache.sequences.len() * c.heads).collect();
        let outputs: Vec<Tensor> = jobs
            .par_iter()
            .map(|&number| self.decode_head(pass, &q, number, &cache.sequences[number / c.heads]))
            .collect();
        let mut joined = Tensor::zeros(&[x.rows(), c.heads * c.v_head]);
        for (number, output) in outputs.iter().enumerate() {
            let (sequence, head) = (number / c.heads, number % c.heads);
            for token in 0..pass.tokens {
                joined.row_mut(sequence * pass.tokens + token)[head * c.v_head..][..c.v_head]
                    .copy_from_slice(output.row(token));
            }
        }
        linear(&joined, &self.out)
    }

    /// [tokens, v] of one head of one sequence.
    fn decode_head(&self, pass: Pass<'_>, q: &Tensor, number: usize, cached: &Sequence) -> Tensor {
        let (c, tokens) = (pass.config, pass.tokens);
        let (sequence, head) = (number / c.heads, number % c.heads);
        let known = cached.k_rope.len() / c.qk_rope;
        let q = &q.data()[sequence * tokens * q.cols() + head * (c.qk_nope + c.qk_rope)..];
        let q_stride = c.heads * (c.qk_nope + c.qk_rope);
        let rows = &self.kv_b.data()[head * (c.qk_nope + c.v_head) * c.kv_lora..];
        let key_rows = View::new(rows, c.qk_nope, c.kv_lora, c.kv_lora);
        let value_rows = View::new(&rows[c.qk_nope * c.kv_lora..], c.v_head, c.kv_lora, c.kv_lora);
        let latents = View::new(&cached.latents, known, c.kv_lora, c.kv_lora);
        let k_rope = View::new(&cached.k_rope, known, c.qk_rope, c.qk_rope);

        let mut absorbed = Tensor::zeros(&[tokens, c.kv_lora]);
        let q_nope = View::new(q, tokens, c.qk_nope, q_stride);
        matmul(absorbed.view_mut(), Into::Replace, 1.0, q_nope, key_rows);
        let mut scores = Tensor::zeros(&[tokens, known]);
        let scale = score_scale(c);
        matmul(scores.view_mut(), Into::Replace, scale, absorbed.view(), latents.t());
        let q_rope = View::new(&q[c.qk_nope..], tokens, c.qk_rope, q_stride);
        matmul(scores.view_mut(), Into::Add, scale, q_rope, k_rope.t());
        causal_softmax(scores.data_mut(), known, known - tokens);
        let mut mixed = absorbed;
        matmul(mixed.view_mut(), Into::Replace, 1.0, scores.view(), latents);
        let mut output = Tensor::zeros(&[tokens, c.v_head]);
        matmul(output.view_mut(), Into::Replace, 1.0, mixed.view(), value_rows.t());
        output
    }
}
