#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! Multi-token prediction, the optimizer and the balance of experts.

use ff2_model::{AdamW, Model, ModelConfig, Parameters, Tokens, Weights};

fn model() -> Model {
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "deepseek_v3", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
        "moe_intermediate_size": 8, "num_hidden_layers": 2, "first_k_dense_replace": 1, "num_attention_heads": 2,
        "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4,
        "n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1,
        "num_nextn_predict_layers": 2, "initializer_range": 0.3
    }))
    .unwrap();
    Model::new(config.clone(), Weights::random(&config, 3))
}

fn tokens() -> Tokens {
    Tokens::new((0..16).map(|i| i * 7 % 32).collect(), 8, 32).unwrap()
}

/// Every tensor, MTP modules among them, against the slope along a direction; all experts are chosen, so that the
/// loss is smooth.
#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let (model, tokens, weight) = (model(), tokens(), 0.5);
    let mut grad = Weights::zeros(model.config());
    let loss = model.step(&tokens, weight, &mut grad).unwrap();
    assert!(loss.mtp > 1.0, "{loss:?}");
    let total = |model: &Model| {
        let loss = model.step(&tokens, weight, &mut Weights::zeros(model.config())).unwrap();
        loss.main + f64::from(weight) * loss.mtp
    };
    let mut names = Vec::new();
    grad.visit("", &mut |name, g| names.push((name, g.data().to_vec())));
    for (name, g) in names.iter().filter(|(name, _)| ff2_model::is_trained(name)) {
        let norm = g.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!(norm > 0.0, "{name} has no gradient");
        let step = 1e-2;
        let along = |sign: f32| {
            let mut moved = model.clone();
            moved.weights_mut().visit_mut("", &mut |found, tensor| {
                if found == *name {
                    tensor
                        .data_mut()
                        .iter_mut()
                        .zip(g)
                        .for_each(|(w, g)| *w += sign * step * g / norm);
                }
            });
            total(&moved)
        };
        let slope = (along(1.0) - along(-1.0)) / (2.0 * f64::from(step));
        let error = (slope / f64::from(norm) - 1.0).abs();
        assert!(
            error < 0.02 || (slope - f64::from(norm)).abs() < 2e-4,
            "{name}: slope {slope}, gradient {norm}"
        );
    }
}

#[test]
fn steps_learn_a_text_and_balance_follows_the_load() {
    let (mut model, tokens) = (model(), tokens());
    let mut optimizer = AdamW::new(model.config());
    let mut losses = Vec::new();
    for _ in 0..40 {
        let mut grad = Weights::zeros(model.config());
        losses.push(model.step(&tokens, 0.3, &mut grad).unwrap());
        optimizer.step(model.weights_mut(), &grad, 0.01);
    }
    let (first, last) = (&losses[0], &losses[39]);
    assert!(last.main < first.main * 0.3 && last.mtp < first.mtp * 0.5, "{first:?} {last:?}");
    model.balance(&[vec![1, 2, 2, 3]], 0.25).unwrap();
    let mut biases = Vec::new();
    model.weights().visit("", &mut |name, tensor| {
        if !ff2_model::is_trained(&name) {
            biases.push(tensor.data().to_vec());
        }
    });
    assert_eq!(biases[0], [0.25, 0.0, 0.0, -0.25]);
    assert!(model.balance(&[vec![1]], 0.25).is_err());
}

#[test]
fn only_what_is_to_be_learned_counts() {
    let (model, tokens) = (model(), tokens());
    let all = model.losses(&tokens).unwrap();
    assert_eq!(all.len(), 2 * 7);
    let mean = all.iter().sum::<f64>() / 14.0;
    let loss = model.step(&tokens, 0.0, &mut Weights::zeros(model.config())).unwrap();
    assert!((mean - loss.main).abs() < 1e-9, "{mean} {loss:?}");
    // Tokens 3 and 12: rows 2 of the first and 11 - 8 of the second sequence predict them.
    let masked = tokens.clone().learned_where((0..16).map(|t| t == 3 || t == 12).collect());
    let mut grad = Weights::zeros(model.config());
    let loss = model.step(&masked, 0.0, &mut grad).unwrap();
    assert!((loss.main - (all[2] + all[7 + 3]) / 2.0).abs() < 1e-9, "{loss:?} {all:?}");
    let kept = model.losses(&masked).unwrap();
    assert_eq!(kept.iter().filter(|loss| **loss != 0.0).count(), 2);
    let nothing = tokens.learned_where(vec![false; 16]);
    let mut none = Weights::zeros(model.config());
    assert_eq!(model.step(&nothing, 0.5, &mut none).unwrap().main, 0.0);
    none.visit("", &mut |name, tensor| assert!(tensor.data().iter().all(|g| *g == 0.0), "{name}"));
}
