#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! Guesses of the module for multi-token prediction change the speed and nothing else.

mod common;

use std::sync::Arc;

use common::{Answer, engine, options};
use ff2_engine::{EngineOptions, Request, Sampling};
use ff2_model::{AdamW, Model, ModelConfig, Tokens, Weights};

/// Has learned a text well enough to foresee it two tokens ahead.
fn model() -> Model {
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "deepseek_v3", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
        "moe_intermediate_size": 8, "num_hidden_layers": 2, "first_k_dense_replace": 1, "num_attention_heads": 2,
        "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4,
        "n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
        "num_nextn_predict_layers": 1, "initializer_range": 0.3, "max_position_embeddings": 128
    }))
    .unwrap();
    let mut model = Model::new(config.clone(), Weights::random(&config, 3));
    let tokens = Tokens::new((0..64).map(|i| i * 7 % 16).collect(), 32, 32).unwrap();
    let mut optimizer = AdamW::new(model.config());
    for _ in 0..60 {
        let mut grad = Weights::zeros(model.config());
        model.step(&tokens, 0.5, &mut grad).unwrap();
        optimizer.step(model.weights_mut(), &grad, 0.02);
    }
    model
}

#[test]
fn the_text_is_the_same_with_and_without_and_guesses_are_counted() {
    let model = Arc::new(model());
    let with = engine(&model, options());
    let without = engine(&model, EngineOptions { draft_running_max: 0, ..options() });
    let warm = Sampling { seed: Some(4), temperature: 0.8, ..Sampling::default() };
    let requests = || {
        (0..4u32).map(|at| {
            let prompt = (at..at + 9).map(|i| i * 7 % 16).collect();
            let request = Request::greedy(prompt, 60);
            if at % 2 == 0 { request } else { Request { sampling: warm.clone(), n: 2, ..request } }
        })
    };
    for (one, other) in requests().zip(requests()) {
        let (one, other) = (with.submit(one).unwrap(), without.submit(other).unwrap());
        assert_eq!(Answer::of(one).texts(), Answer::of(other).texts());
    }
    let (figures, none) = (with.figures(), without.figures());
    assert_eq!((none.tokens_drafted, none.tokens_accepted), (0, 0));
    assert!(figures.tokens_accepted <= figures.tokens_drafted);
    let share = figures.tokens_accepted as f64 / figures.tokens_drafted as f64;
    assert!(share > 0.5, "{share} of {} guesses", figures.tokens_drafted);
    assert!(figures.step_time.counts.iter().sum::<u64>() < none.step_time.counts.iter().sum());
}
