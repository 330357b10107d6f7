//! Whether memory stays where it is over many requests to a tiny model; fails if it does not.
//! Arguments: requests (10000), threads (1).

mod common;

use std::sync::Arc;

use ff2_engine::{Engine, EngineOptions};
use ff2_model::{Model, ModelConfig, Weights};

/// Requests under way at once.
const BATCH: u32 = 16;
/// Growth behind the first tenth that is still called none.
const GROWTH_MAX: f64 = 1.05;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let requests: u32 = arguments.next().as_deref().unwrap_or("10000").parse()?;
    let threads = arguments.next().as_deref().unwrap_or("1").parse()?;
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "deepseek_v3", "vocab_size": 264, "hidden_size": 64, "intermediate_size": 128,
        "moe_intermediate_size": 32, "num_hidden_layers": 3, "first_k_dense_replace": 1, "num_attention_heads": 4,
        "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
        "n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1,
        "num_nextn_predict_layers": 0, "max_position_embeddings": 1024
    }))?;
    let model = Arc::new(Model::new(config.clone(), Weights::random(&config, 1)));
    // So small that the prefix cache is full, and evicts, within the first tenth.
    let options = EngineOptions { threads, kv_bytes: 4 << 20, ..EngineOptions::default() };
    let engine = Engine::start(model, options)?;
    let (mut done, mut sampled) = (0, Vec::new());
    while done < requests {
        let prompt = |n: u32| -> Vec<u32> {
            // Lengths from 16 to 271.
            let seed = (done + n).wrapping_mul(2_654_435_761);
            (0..16 + (seed >> 24)).map(|i| (seed ^ i.wrapping_mul(7919)) % 264).collect()
        };
        common::generate(&engine, (0..BATCH).map(prompt), 8)?;
        done += BATCH;
        if sampled.len() < (done * 10 / requests) as usize {
            sampled.push(resident_kib()?);
        }
    }
    let figures = engine.figures();
    println!("{done} requests; resident KiB after each tenth: {sampled:?}");
    println!(
        "blocks: {} in use, {} cached, of {}",
        figures.blocks_used, figures.blocks_cached, figures.blocks
    );
    let (first, last) = (sampled[0] as f64, sampled[sampled.len() - 1] as f64);
    if last > first * GROWTH_MAX || figures.blocks_used != 0 {
        return Err("memory grew, or blocks of ended requests are still in use".into());
    }
    Ok(())
}

fn resident_kib() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    Ok(number.ok_or("expected VmRSS in /proc/self/status")?.parse()?)
}
