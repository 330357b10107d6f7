#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;

use super::*;

/// V3's as it lies on the Hub, with the older keys.
fn older() -> Value {
    let text = r#"{
        "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}, "aux_loss_alpha": 0.001,
        "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3, "hidden_act": "silu",
        "hidden_size": 7168, "initializer_range": 0.02, "intermediate_size": 18432, "kv_lora_rank": 512,
        "max_position_embeddings": 163840, "model_type": "deepseek_v3", "moe_intermediate_size": 2048,
        "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": true,
        "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
        "num_nextn_predict_layers": 1, "pretraining_tp": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "rms_norm_eps": 1e-6,
        "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
            "weight_block_size": [128, 128]},
        "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 4096, "type": "yarn"},
        "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "seq_aux": true,
        "tie_word_embeddings": false, "topk_group": 4, "topk_method": "noaux_tc", "torch_dtype": "bfloat16",
        "transformers_version": "4.33.1", "use_cache": true, "v_head_dim": 128, "vocab_size": 129280
    }"#;
    serde_json::from_str(text).unwrap()
}

#[test]
fn older_and_newer_keys_say_the_same() {
    let read = ModelConfig::from_json(older()).unwrap();
    assert_eq!(read.fp8_block, Some([128, 128]));
    assert_eq!(read.rope.yarn.as_ref().unwrap().original_context, 4096);
    assert_eq!((read.eos.as_slice(), read.choice), ([1].as_slice(), Choice::GroupTopTwo));
    let written = read.to_json("bfloat16");
    assert_eq!(written["rms_norm_eps"], 1e-6);
    let again = ModelConfig::from_json(written).unwrap();
    assert_eq!(again, ModelConfig { fp8_block: None, ..read });
    // 576 numbers a layer instead of 128 heads' keys and values.
    assert!((again.kv_share() - 0.01758).abs() < 1e-5);
}

#[test]
fn what_cannot_be_computed_is_refused_by_name() {
    let cases = [
        ("sliding_window", json!(128), "unknown key `sliding_window`"),
        ("model_type", json!("llama"), "model_type `llama`, expected deepseek_v2 or deepseek_v3"),
        ("hidden_size", json!("7168"), "hidden_size is \"7168\", expected a whole number"),
        ("vocab_size", Value::Null, "no key `vocab_size`, expected a whole number"),
        ("heads", json!(1), "unknown key `heads`"),
        ("attention_bias", json!(true), "attention_bias is true, only false"),
        ("hidden_act", json!("gelu"), "hidden_act is \"gelu\", only \"silu\""),
        ("rope_scaling", json!({"type": "linear", "factor": 2}), "rope_type `linear`"),
        ("rope_scaling", json!(3), "rope_parameters: found a number"),
        ("n_group", json!(7), "groups of equal size"),
        ("num_experts_per_tok", json!(129), "at most the 128 in reach"),
        ("qk_rope_head_dim", json!(63), "an even number"),
        ("head_dim", json!(128), "head_dim is 128, expected 64"),
        ("kv_lora_rank", json!(0), "kv_lora_rank is 0"),
        ("quantization_config", json!({"quant_method": "awq"}), "expected quant_method fp8"),
    ];
    for (key, value, expected) in cases {
        let mut all = older();
        all[key] = value;
        let error = ModelConfig::from_json(all).unwrap_err();
        assert!(error.contains(expected), "{key}: {error}");
    }
    assert_eq!(ModelConfig::from_json(json!([])).unwrap_err(), "found a list, expected an object");
}
