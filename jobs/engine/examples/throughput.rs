//! Times generation alone, in a batch, and prefill, and tells what a token keeps in the cache;
//! `tests/parity/throughput.py` does the same with Python. Arguments: FOLDER (a model; without a config.json there, a
//! random one is written to it first), threads.

use std::{path::Path, sync::Arc, time::Instant};

use ff2_engine::{Engine, EngineOptions, Event, Request};
use ff2_model::{
    Checkpoint, Model, ModelConfig, Pages, Weights,
    checkpoint::{Precision, write},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("expected a folder for the model, then threads")?;
    let folder = Path::new(&folder);
    let threads = arguments.next().as_deref().unwrap_or("1").parse()?;
    if !folder.join("config.json").exists() {
        let text = include_str!("../../../tests/parity/throughput.json");
        let config = ModelConfig::from_json(serde_json::from_str(text)?)?;
        std::fs::create_dir_all(folder)?;
        let model = Model::new(config.clone(), Weights::random(&config, 1));
        write(&model, folder, Precision::F32, 1 << 30)?;
    }
    let model = Arc::new(Checkpoint::open(folder)?.load()?);
    println!("ff2-engine, {threads} threads, {} parameters", model.weights().len());
    let options = EngineOptions {
        threads,
        prefill_chunk: 512,
        kv_bytes: 256 << 20,
        ..EngineOptions::default()
    };
    let engine = Engine::start(Arc::clone(&model), options)?;
    let vocab = u32::try_from(model.config().vocab)?;
    let mut round = 0;
    for (name, count, len, new) in
        [("single stream", 1, 32, 64), ("batch of 16", 16, 32, 64), ("prefill of 1024", 1, 1024, 1)]
    {
        let mut best: f64 = 0.0;
        for _ in 0..3 {
            // Another first token each time, so that nothing comes from the prefix cache.
            round += 1;
            let prompt = |s: u32| {
                (0..len).map(
                    move |i: u32| if i == 0 { round } else { (i + 1) * (s + 7) * 7919 % vocab },
                )
            };
            let start = Instant::now();
            let all: Result<Vec<_>, _> = (0..count)
                .map(|s| {
                    let request = Request::greedy(prompt(s).collect(), new);
                    engine.submit(Request { ignore_eos: true, ..request })
                })
                .collect();
            let mut generated = 0;
            for mut generation in all? {
                while let Some(event) = generation.next_blocking() {
                    generated += u32::from(matches!(event, Event::Token { .. }));
                }
            }
            let tokens = if new == 1 { count * len } else { generated };
            best = best.max(f64::from(tokens) / start.elapsed().as_secs_f64());
        }
        println!("{name}: {best:.1} tokens/s");
    }
    let v3 = ModelConfig::from_json(serde_json::from_str(V3)?)?;
    for (name, config) in [("this model", model.config()), ("V3's shape", &v3)] {
        let pages = Pages::new(config, 64, 4);
        let bytes = pages.bytes() / (pages.blocks() * pages.block_tokens());
        let layers = config.layers + config.mtp_layers.min(1);
        let plain = layers * config.heads * (config.qk_nope + config.v_head) * 4;
        println!(
            "KV cache of {name}: {bytes} bytes a token, {:.2} % of multi-head attention's {plain}",
            100.0 * bytes as f64 / plain as f64
        );
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
