#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! Activation checkpointing: the same numbers in less memory.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use ff2_model::{Model, ModelConfig, Parameters, Tokens, Weights};

/// The system's, with a count of what is held.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(HELD.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps the promises that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above; the memory came from there.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn recomputing_gives_the_same_bits_in_less_than_half_of_the_memory() {
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "deepseek_v3", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64,
        "moe_intermediate_size": 32, "num_hidden_layers": 8, "first_k_dense_replace": 1, "num_attention_heads": 4,
        "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
        "n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
        "num_nextn_predict_layers": 1, "initializer_range": 0.2
    }))
    .unwrap();
    let mut model = Model::new(config.clone(), Weights::random(&config, 5));
    let tokens = Tokens::new((0..512).map(|i| i * 31 % 64).collect(), 128, 64).unwrap();
    let mut step = |recompute: bool| {
        model.set_recompute(recompute);
        let mut grad = Weights::zeros(&config);
        let before = HELD.load(Relaxed);
        MOST.store(before, Relaxed);
        let loss = model.step(&tokens, 0.3, &mut grad).unwrap();
        let most = MOST.load(Relaxed) - before;
        let mut bits = Vec::new();
        grad.visit("", &mut |_, tensor| bits.extend(tensor.data().iter().map(|x| x.to_bits())));
        (loss, bits, most)
    };
    let (kept, again) = (step(false), step(true));
    assert_eq!(kept.0, again.0);
    assert!(kept.1 == again.1, "gradients differ");
    println!("held at most: {} bytes, recomputing {}", kept.2, again.2);
    assert!(again.2 * 2 < kept.2, "{} of {} bytes", again.2, kept.2);
}
