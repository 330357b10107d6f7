//! What a token takes in the KV cache, read from what its memory was given, beside attention with keys and values for
//! each head; and how long the first token takes with a long prefix that is new, in memory, or on disk.
//! Arguments: FOLDER (a model, as for `throughput`), FOLDER for the prefix cache (may lie on ff2), threads, tokens of
//! the prefix (4096).

mod common;

use std::{path::Path, sync::Arc, thread, time::Duration, time::Instant};

use ff2_engine::{DiskOptions, Engine, EngineOptions};
use ff2_model::{ModelConfig, Pages};

/// Tokens behind the prefix.
const QUESTION: u32 = 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("expected a model, a folder for the cache, threads")?;
    let cache = arguments.next().ok_or("expected a folder for the prefix cache")?;
    let threads = arguments.next().as_deref().unwrap_or("1").parse()?;
    let prefix: u32 = arguments.next().as_deref().unwrap_or("4096").parse()?;
    let model = Arc::new(common::model(Path::new(&folder))?);
    let v3 = ModelConfig::from_json(serde_json::from_str(V3)?)?;
    let demo = ModelConfig::from_json(serde_json::from_str(DEMO)?)?;
    let shapes = [("this model", model.config()), ("the demo's model", &demo), ("V3's shape", &v3)];
    for (name, config) in shapes {
        let pages = Pages::new(config, 64, 4);
        let bytes = pages.bytes() / (pages.blocks() * pages.block_tokens());
        let layers = config.layers + config.mtp_layers.min(1);
        let plain = layers * config.heads * (config.qk_nope + config.v_head) * size_of::<f32>();
        let share = 100.0 * bytes as f64 / plain as f64;
        println!("{name}: {bytes} bytes a token, {share:.2} % of multi-head attention's {plain}");
    }

    let options = EngineOptions {
        threads,
        prefill_chunk: 512,
        kv_bytes: 256 << 20,
        disk: Some(DiskOptions { folder: cache.into(), bytes_max: 4 << 30 }),
        ..EngineOptions::default()
    };
    let vocab = u32::try_from(model.config().vocab)?;
    // Each process has prefixes of its own: what an earlier run left on disk is not found.
    let run = std::process::id();
    let prompt = |round: u32, question: u32| -> Vec<u32> {
        let prefix = (0..prefix).map(move |i| (i ^ run).wrapping_mul(7919 + 2 * round) % vocab);
        prefix.chain((0..QUESTION).map(move |i| (i + 1) * (question + 3) % vocab)).collect()
    };
    let timed = |engine: &Engine, prompt: Vec<u32>| -> Result<f64, Box<dyn std::error::Error>> {
        let start = Instant::now();
        common::generate(engine, std::iter::once(prompt), 1)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let mut all = [const { Vec::new() }; 3];
    for round in 0..3 {
        let engine = Engine::start(Arc::clone(&model), options.clone())?;
        all[0].push(timed(&engine, prompt(round, 0))?);
        all[1].push(timed(&engine, prompt(round, 1))?);
        // Blocks are saved behind the answer.
        thread::sleep(Duration::from_secs(1));
        let unsaved = engine.figures().blocks_not_saved;
        drop(engine);
        let engine = Engine::start(Arc::clone(&model), options.clone())?;
        all[2].push(timed(&engine, prompt(round, 2))?);
        let from_disk = engine.figures().prefix_hits_disk;
        println!("round {round}: {unsaved} blocks not saved, {from_disk} tokens from disk");
    }
    for (name, times) in ["new", "in memory", "on disk, a new engine"].iter().zip(&mut all) {
        times.sort_unstable_by(f64::total_cmp);
        println!("first token, prefix of {prefix} {name}: {:.1} ms (median of 3)", times[1]);
    }
    Ok(())
}

/// DeepSeek-V3's published sizes.
const V3: &str = r#"{
    "model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
    "moe_intermediate_size": 2048, "num_hidden_layers": 61, "first_k_dense_replace": 3, "num_attention_heads": 128,
    "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "n_shared_experts": 1, "n_routed_experts": 256, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
    "num_nextn_predict_layers": 0, "max_position_embeddings": 163840
}"#;

/// As in deploy/demo/model.toml.
const DEMO: &str = r#"{
    "model_type": "deepseek_v3", "vocab_size": 264, "hidden_size": 64, "intermediate_size": 128,
    "moe_intermediate_size": 32, "num_hidden_layers": 3, "first_k_dense_replace": 1, "num_attention_heads": 4,
    "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1,
    "num_nextn_predict_layers": 0, "max_position_embeddings": 64
}"#;
