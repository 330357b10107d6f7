//! How much arithmetic a model asks for, and how much this machine can do: their ratio is a run's MFU (model FLOPs
//! utilisation; Chowdhery et al. 2022, appendix B).

use std::time::{Duration, Instant};

use crate::{
    ModelConfig, Tensor,
    view::{Into, matmul},
};

impl ModelConfig {
    /// Floating-point operations to train on one token in sequences of `tokens`: 6 for each weight that the token
    /// meets (2 forwards, 4 backwards; of the routed experts only those chosen, the embedding is no product), and
    /// 6 for each product of attention with the tokens before it, half of the sequence on average. `with_mtp`: its
    /// modules are trained too.
    pub fn training_flops(&self, tokens: usize, with_mtp: bool) -> f64 {
        let c = self;
        let n = |size: usize| size as f64;
        let queries = n(c.heads * (c.qk_nope + c.qk_rope));
        let query =
            c.q_lora.map_or(n(c.hidden) * queries, |rank| n(rank) * (n(c.hidden) + queries));
        let latent =
            n(c.hidden * (c.kv_lora + c.qk_rope)) + n(c.kv_lora * c.heads * (c.qk_nope + c.v_head));
        let attention = query + latent + n(c.heads * c.v_head * c.hidden);
        let pairs = n(tokens) / 2.0 * n(c.heads * (c.qk_nope + c.qk_rope + c.v_head));
        let chosen = c.experts_per_token + c.shared_experts;
        let layer = |number: usize| {
            let feed_forward = if c.has_experts(number) {
                n(3 * c.hidden * c.expert_inner * chosen + c.hidden * c.routed_experts)
            } else {
                n(3 * c.hidden * c.dense_inner)
            };
            attention + pairs + feed_forward
        };
        let head = n(c.hidden * c.vocab);
        let modules = if with_mtp { c.mtp_layers } else { 0 };
        let module = |depth: usize| layer(c.layers + depth) + n(2 * c.hidden * c.hidden) + head;
        let layers: f64 = (0..c.layers).map(layer).sum();
        6.0 * (layers + head + (0..modules).map(module).sum::<f64>())
    }
}

/// Floating-point operations a second that large products reach here with the current threads: the fastest of some
/// tries within about 0.2 s.
pub fn peak_flops() -> f64 {
    const SIZE: usize = 512;
    let square = || Tensor::new(&[SIZE, SIZE], vec![0.5; SIZE * SIZE]).expect("a square");
    let (a, b, mut out) = (square(), square(), square());
    let began = Instant::now();
    let mut best = f64::INFINITY;
    while best.is_infinite() || began.elapsed() < Duration::from_millis(200) {
        let start = Instant::now();
        matmul(out.view_mut(), Into::Replace, 1.0, a.view(), b.view());
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (SIZE * SIZE * SIZE) as f64 / best
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::{Parameters, Weights};

    /// Of a model whose experts are all chosen, each weight but embedding and norms is met once.
    #[test]
    fn each_weight_costs_six() {
        let config = ModelConfig::from_json(serde_json::json!({
            "model_type": "deepseek_v3", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
            "moe_intermediate_size": 8, "num_hidden_layers": 3, "first_k_dense_replace": 1,
            "num_attention_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4,
            "qk_rope_head_dim": 4, "v_head_dim": 6, "n_shared_experts": 1, "n_routed_experts": 4,
            "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1, "num_nextn_predict_layers": 1
        }))
        .unwrap();
        let mut weights = 0;
        Weights::zeros(&config).visit("", &mut |name, tensor| {
            if tensor.shape().len() > 1 && !name.contains("embed_tokens") {
                weights += tensor.len();
            }
        });
        // The head is used by the module for multi-token prediction too.
        let expected = 6 * (weights + 32 * 16);
        let attention = 6 * 4 * (100 / 2) * 2 * (4 + 4 + 6);
        assert_eq!(config.training_flops(100, true), (expected + attention) as f64);
        assert!(config.training_flops(100, false) < config.training_flops(100, true));
    }

    #[test]
    fn a_machine_has_a_peak() {
        let peak = peak_flops();
        assert!(peak.is_finite() && peak > 1e7, "{peak}");
    }
}
