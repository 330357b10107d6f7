//! What a step of two ranks costs, with sums beside the backward and behind it, and what one rank alone needs for its
//! part: `cargo run --release -p ff2-parallel --example overlap [RANKS [ROUNDS]]`.
//!
//! Each rank is a process that computes with one thread.

#![allow(clippy::print_stdout, reason = "figures for people")]

#[path = "../../collectives/examples/ranks/mod.rs"]
mod ranks;

use std::{env, time::Instant};

use ff2_collectives::Communicator;
use ff2_model::{Model, ModelConfig, Tokens, Weights};
use ff2_parallel::{Parallel, Plan, Settings};
use ranks::{Outcome, start};

/// 8 sequences of 256 tokens a rank.
const BATCH: usize = 8;
const LEN: usize = 256;

fn main() -> Outcome<()> {
    let mut arguments = env::args().skip(1);
    let ranks: usize = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    if env::var_os("RANK").is_some() {
        return rank(rounds);
    }
    for count in [1, ranks] {
        start(count, &[count, rounds])?;
    }
    Ok(())
}

fn model() -> Outcome<Model> {
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "deepseek_v3", "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768,
        "moe_intermediate_size": 256, "num_hidden_layers": 6, "first_k_dense_replace": 1, "num_attention_heads": 4,
        "q_lora_rank": 128, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 32,
        "n_shared_experts": 1, "n_routed_experts": 16, "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1,
        "initializer_range": 0.02
    }))?;
    let weights = Weights::random(&config, 1);
    Ok(Model::new(config, weights))
}

fn rank(rounds: usize) -> Outcome<()> {
    let all = Communicator::from_env()?;
    let (rank, ranks) = (all.rank(), all.ranks());
    let plans = [
        ("sums beside the backward", Plan::default()),
        ("sums behind the backward", Plan { overlap: false, ..Plan::default() }),
        ("ZeRO-1", Plan { zero1: true, ..Plan::default() }),
        ("experts divided, ZeRO-1", Plan { zero1: true, expert_ranks: ranks, ..Plan::default() }),
    ];
    for (name, plan) in plans {
        if ranks == 1 && plan != Plan::default() {
            continue;
        }
        let mut model = model()?;
        let numbers = model.weights().len();
        let own = all.split(|_| 0);
        let mut parallel = Parallel::new(own, plan, Settings::default(), &mut model)?;
        let ids = (0..BATCH * LEN).map(|at| ((at * 7919 + rank * 104_729) % 4096) as u32).collect();
        let tokens = [Tokens::new(ids, LEN, 4096)?];
        let (mut best, mut waited) = (f64::MAX, 0.0);
        for _ in 0..=rounds {
            all.barrier().wait()?;
            let begun = Instant::now();
            let found = parallel.gradients(&model, &tokens, 0.0)?;
            let wait = found.waited.as_secs_f64();
            parallel.update(&mut model, found, 1e-4, 1.0)?;
            let took = begun.elapsed().as_secs_f64();
            if took < best {
                (best, waited) = (took, wait);
            }
        }
        if rank == 0 {
            let millions = numbers as f64 / 1e6;
            println!(
                "{ranks} ranks, {millions:.1} M numbers, {name}: {:.0} ms a step, {:.0} ms of it waiting for sums",
                best * 1e3,
                waited * 1e3
            );
        }
    }
    Ok(all.close()?)
}
