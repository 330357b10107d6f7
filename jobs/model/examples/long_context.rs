//! Whether logits at the end of a long context are the same from cached tokens as from a pass without, in a small model
//! of V3's shape with YaRN. All experts are chosen, as rounding would decide between two that are as good.
//! Arguments: tokens (131072), threads (1).

use std::time::Instant;

use ff2_model::{Block, Model, ModelConfig, Pages, Span, Tensor, Weights};

const BLOCK: usize = 64;
const CHUNK: usize = 512;
/// The last tokens, computed one by one from the cache.
const SINGLE: usize = 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let len: usize = arguments.next().as_deref().unwrap_or("131072").parse()?;
    let threads = arguments.next().as_deref().unwrap_or("1").parse()?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "deepseek_v3", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128,
        "moe_intermediate_size": 32, "num_hidden_layers": 2, "first_k_dense_replace": 1, "num_attention_heads": 2,
        "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
        "n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1,
        "initializer_range": 0.15, "max_position_embeddings": 131072, "rope_theta": 10000.0,
        "rope_scaling": {"type": "yarn", "factor": 32, "original_max_position_embeddings": 4096, "beta_fast": 32,
            "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}
    }))?;
    let model = Model::new(config.clone(), Weights::random(&config, 1));
    let text: Vec<u32> =
        (0..u32::try_from(len)?).map(|i| i.wrapping_mul(2_654_435_761) >> 24).collect();
    let blocks: Vec<Block> = (0..u32::try_from(len.div_ceil(BLOCK))?).map(Block).collect();

    let start = Instant::now();
    let mut pages = Pages::new(&config, BLOCK, blocks.len());
    let span = Span { tokens: &text, from: 0, blocks: &blocks, logits: SINGLE };
    let whole = model.advance(&[span], &mut pages)?.logits;
    println!("{len} tokens in one pass: {:.1} s", start.elapsed().as_secs_f64());

    let start = Instant::now();
    let mut pages = Pages::new(&config, BLOCK, blocks.len());
    let mut cached = Vec::new();
    let mut known = 0;
    while known < len {
        let count = if known + SINGLE < len { CHUNK.min(len - SINGLE - known) } else { 1 };
        let tokens = &text[known..known + count];
        let logits = usize::from(count == 1);
        let span = Span { tokens, from: known, blocks: &blocks, logits };
        cached.extend_from_slice(model.advance(&[span], &mut pages)?.logits.data());
        known += count;
    }
    println!("in chunks of {CHUNK}, then one by one: {:.1} s", start.elapsed().as_secs_f64());
    let cached = Tensor::new(whole.shape(), cached).ok_or("expected logits of the last tokens")?;
    let largest = whole.data().iter().fold(0f32, |m, x| m.max(x.abs()));
    let difference =
        whole.data().iter().zip(cached.data()).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    println!(
        "largest difference of the last {SINGLE} tokens' logits: {:.1e} of {largest:.3}",
        difference
    );
    if difference > 1e-4 * largest {
        return Err("logits from the cache are not those of one pass".into());
    }
    Ok(())
}
