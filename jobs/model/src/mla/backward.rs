//! From the gradient of an attention's output to those of its weights and its input.

use super::{
    LATENT_EPS, Mla, Pass, Query, Saved,
    heads::{Heads, put_head},
    turn_queries,
};
use crate::{Tensor, linear::linear_backward, norm::rms_norm_backward, rope::Turn};

impl Mla {
    pub(crate) fn backward(
        &self,
        pass: Pass<'_>,
        x: &Tensor,
        saved: &Saved,
        dy: &Tensor,
        grad: &mut Self,
    ) -> Tensor {
        let d_heads = linear_backward(&saved.heads_out, &self.out, dy, &mut grad.out);
        let heads = Heads::new(pass, &saved.q, &saved.kv, &saved.latent.k_rope);
        let (heads_count, tokens) = (pass.config.heads, pass.tokens);
        let mut d_q = Tensor::zeros(saved.q.shape());
        let mut d_kv = Tensor::zeros(saved.kv.shape());
        let mut d_k_rope = Tensor::zeros(saved.latent.k_rope.shape());
        for (number, head) in heads.backward(&saved.shares, &d_heads).iter().enumerate() {
            put_head(&mut d_q, head.q.data(), number, heads_count, tokens);
            put_head(&mut d_kv, head.kv.data(), number, heads_count, tokens);
            // All heads share the rotary key.
            let into = &mut d_k_rope.data_mut()[number / heads_count * head.k_rope.data().len()..];
            into.iter_mut().zip(head.k_rope.data()).for_each(|(sum, d)| *sum += d);
        }
        turn_queries(pass, &mut d_q, Turn::Back);
        let mut dx = self.queries_backward(x, saved, &d_q, grad);
        dx.add(&self.latent_backward(pass, x, saved, &d_kv, &mut d_k_rope, grad));
        dx
    }

    fn queries_backward(&self, x: &Tensor, saved: &Saved, d_q: &Tensor, grad: &mut Self) -> Tensor {
        match (&self.query, &mut grad.query, &saved.query) {
            (Query::Direct(weight), Query::Direct(grad), _) => {
                linear_backward(x, weight, d_q, grad)
            }
            (Query::Compressed(parts), Query::Compressed(grad), Some((raw, normed))) => {
                let d_normed = linear_backward(normed, &parts.b, d_q, &mut grad.b);
                let d_raw =
                    rms_norm_backward(raw, &parts.norm, LATENT_EPS, &d_normed, &mut grad.norm);
                linear_backward(x, &parts.a, &d_raw, &mut grad.a)
            }
            _ => unreachable!("weights, gradients and saved products are of one configuration"),
        }
    }

    fn latent_backward(
        &self,
        pass: Pass<'_>,
        x: &Tensor,
        saved: &Saved,
        d_kv: &Tensor,
        d_k_rope: &mut Tensor,
        grad: &mut Self,
    ) -> Tensor {
        let latent = &saved.latent;
        let d_normed = linear_backward(&latent.normed, &self.kv_b, d_kv, &mut grad.kv_b);
        let d_raw =
            rms_norm_backward(&latent.raw, &self.kv_norm, LATENT_EPS, &d_normed, &mut grad.kv_norm);
        let rank = pass.config.kv_lora;
        let mut d_both = Tensor::zeros(&[x.rows(), rank + pass.config.qk_rope]);
        for row in 0..x.rows() {
            pass.angles.turn(d_k_rope.row_mut(row), row % pass.tokens, Turn::Back);
            let (into_raw, into_rope) = d_both.row_mut(row).split_at_mut(rank);
            into_raw.copy_from_slice(d_raw.row(row));
            into_rope.copy_from_slice(d_k_rope.row(row));
        }
        linear_backward(x, &self.kv_a, &d_both, &mut grad.kv_a)
    }
}
