//! Multi-head latent attention (DeepSeek-V2 report, section 2.1). Keys and values of all heads come from one small
//! latent a token; position sits in a few rotary dimensions beside it, shared by the keys of all heads.
//! Here the expanded form that training uses; `decode.rs` has the absorbed one.

mod backward;
mod heads;

use crate::{
    Exchange, ModelConfig, Parameters, Tensor,
    linear::linear,
    norm::rms_norm,
    parameters::{join, parameters},
    rope::{Angles, Turn, mscale},
};
use heads::Heads;
pub(crate) use heads::causal_softmax;

/// The norms inside have their own, whatever `rms_norm_eps` says; as in the reference.
const LATENT_EPS: f32 = 1e-6;

#[derive(Debug, Clone)]
pub(crate) struct Mla {
    pub(crate) query: Query,
    /// [kv_lora + rope, hidden]
    pub(crate) kv_a: Tensor,
    pub(crate) kv_norm: Tensor,
    /// [heads * (nope + v), kv_lora], of each head first the key's rows.
    pub(crate) kv_b: Tensor,
    /// [hidden, heads * v]
    pub(crate) out: Tensor,
}

parameters!(Mla {
    query: "",
    kv_a: "kv_a_proj_with_mqa.weight",
    kv_norm: "kv_a_layernorm.weight",
    kv_b: "kv_b_proj.weight",
    out: "o_proj.weight",
});

/// How queries are made; [heads * (nope + rope)] rows in the end.
#[derive(Debug, Clone)]
pub(crate) enum Query {
    Direct(Tensor),
    Compressed(CompressedQuery),
}

#[derive(Debug, Clone)]
pub(crate) struct CompressedQuery {
    a: Tensor,
    norm: Tensor,
    b: Tensor,
}

parameters!(CompressedQuery {
    a: "q_a_proj.weight",
    norm: "q_a_layernorm.weight",
    b: "q_b_proj.weight"
});

impl Parameters for Query {
    fn visit<'a>(&'a self, name: &str, each: &mut dyn FnMut(String, &'a Tensor)) {
        match self {
            Self::Direct(weight) => weight.visit(&join(name, "q_proj.weight"), each),
            Self::Compressed(parts) => parts.visit(name, each),
        }
    }

    fn visit_mut<'a>(&'a mut self, name: &str, each: &mut dyn FnMut(String, &'a mut Tensor)) {
        match self {
            Self::Direct(weight) => weight.visit_mut(&join(name, "q_proj.weight"), each),
            Self::Compressed(parts) => parts.visit_mut(name, each),
        }
    }
}

/// One pass of equally long sequences through a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) angles: &'a Angles,
    /// Tokens of a sequence in this pass.
    pub(crate) tokens: usize,
    /// The ranks that share the experts.
    pub(crate) exchange: Option<&'a dyn Exchange>,
}

#[derive(Debug)]
pub(crate) struct Saved {
    /// Of a compressed query: before and after its norm.
    query: Option<(Tensor, Tensor)>,
    /// [n, heads * (nope + rope)], turned.
    q: Tensor,
    pub(crate) latent: Latent,
    /// [n, heads * (nope + v)]
    kv: Tensor,
    /// [batch, heads, tokens, tokens] after the softmax.
    shares: Vec<f32>,
    /// [n, heads * v]
    heads_out: Tensor,
}

/// What a token leaves for later ones: all that the cache keeps is `normed` and `k_rope`.
#[derive(Debug)]
pub(crate) struct Latent {
    /// [n, kv_lora]
    raw: Tensor,
    pub(crate) normed: Tensor,
    /// [n, rope], turned.
    pub(crate) k_rope: Tensor,
}

impl Mla {
    pub(crate) fn zeros(config: &ModelConfig) -> Self {
        let c = config;
        let queries = c.heads * (c.qk_nope + c.qk_rope);
        Self {
            query: match c.q_lora {
                None => Query::Direct(Tensor::zeros(&[queries, c.hidden])),
                Some(rank) => Query::Compressed(CompressedQuery {
                    a: Tensor::zeros(&[rank, c.hidden]),
                    norm: Tensor::zeros(&[rank]),
                    b: Tensor::zeros(&[queries, rank]),
                }),
            },
            kv_a: Tensor::zeros(&[c.kv_lora + c.qk_rope, c.hidden]),
            kv_norm: Tensor::zeros(&[c.kv_lora]),
            kv_b: Tensor::zeros(&[c.heads * (c.qk_nope + c.v_head), c.kv_lora]),
            out: Tensor::zeros(&[c.hidden, c.heads * c.v_head]),
        }
    }

    /// [n, hidden] -> [n, hidden]; no token sees a later one of its sequence.
    pub(crate) fn forward(&self, pass: Pass<'_>, x: &Tensor) -> (Tensor, Saved) {
        let (q, query) = self.queries(pass, x);
        let latent = self.latent(pass, x);
        let kv = linear(&latent.normed, &self.kv_b);
        let heads = Heads::new(pass, &q, &kv, &latent.k_rope);
        let (shares, heads_out) = heads.attend();
        let y = linear(&heads_out, &self.out);
        (y, Saved { query, q, latent, kv, shares, heads_out })
    }

    /// Queries with their rotary dimensions turned, and what the backward of their compression needs.
    pub(crate) fn queries(&self, pass: Pass<'_>, x: &Tensor) -> (Tensor, Option<(Tensor, Tensor)>) {
        let (mut q, saved) = match &self.query {
            Query::Direct(weight) => (linear(x, weight), None),
            Query::Compressed(parts) => {
                let raw = linear(x, &parts.a);
                let normed = rms_norm(&raw, &parts.norm, LATENT_EPS);
                (linear(&normed, &parts.b), Some((raw, normed)))
            }
        };
        turn_queries(pass, &mut q, Turn::Forward);
        (q, saved)
    }

    pub(crate) fn latent(&self, pass: Pass<'_>, x: &Tensor) -> Latent {
        let rank = pass.config.kv_lora;
        let both = linear(x, &self.kv_a);
        let mut raw = Tensor::zeros(&[x.rows(), rank]);
        let mut k_rope = Tensor::zeros(&[x.rows(), pass.config.qk_rope]);
        for row in 0..x.rows() {
            let (latent, rope) = both.row(row).split_at(rank);
            raw.row_mut(row).copy_from_slice(latent);
            k_rope.row_mut(row).copy_from_slice(rope);
            pass.angles.turn(k_rope.row_mut(row), row % pass.tokens, Turn::Forward);
        }
        let normed = rms_norm(&raw, &self.kv_norm, LATENT_EPS);
        Latent { raw, normed, k_rope }
    }
}

fn turn_queries(pass: Pass<'_>, q: &mut Tensor, turn: Turn) {
    let (nope, rope) = (pass.config.qk_nope, pass.config.qk_rope);
    for row in 0..q.rows() {
        for head in q.row_mut(row).chunks_mut(nope + rope) {
            pass.angles.turn(&mut head[nope..], row % pass.tokens, turn);
        }
    }
}

/// Factor on the products of queries and keys. YaRN's growth applies to both, so it is squared.
pub(crate) fn score_scale(config: &ModelConfig) -> f32 {
    let plain = ((config.qk_nope + config.qk_rope) as f64).powf(-0.5);
    let growth = config.rope.yarn.as_ref().map_or(1.0, |yarn| match yarn.mscale_all_dim {
        Some(m) if m != 0.0 => mscale(yarn.factor, m),
        _ => 1.0,
    });
    (plain * growth * growth) as f32
}
