#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! Paged steps of sequences of any lengths give what whole passes give.

use std::path::PathBuf;

use ff2_model::{Block, Checkpoint, Model, ModelConfig, Pages, Span, Tokens, Weights};

const BLOCK: usize = 3;

fn reference(name: &str) -> Model {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity/reference");
    Checkpoint::open(&root.join(name)).unwrap().load().unwrap()
}

/// With a module for multi-token prediction, and wider latents than keys, so that both forms of attention come.
fn mtp_model() -> Model {
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "deepseek_v3", "vocab_size": 48, "hidden_size": 32, "intermediate_size": 24,
        "moe_intermediate_size": 8, "num_hidden_layers": 2, "first_k_dense_replace": 1, "num_attention_heads": 3,
        "q_lora_rank": 8, "kv_lora_rank": 16, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4,
        "n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
        "num_nextn_predict_layers": 1, "initializer_range": 0.3
    }))
    .unwrap();
    Model::new(config.clone(), Weights::random(&config, 3))
}

fn text(seed: u32, len: usize) -> Vec<u32> {
    (1..).take(len).map(|at: u32| at * (seed + 7) * 31 % 47).collect()
}

/// Blocks of sequence `number`, scattered over the pages.
fn blocks(number: usize) -> Vec<Block> {
    (0..20).map(|at| Block(u32::try_from((at * 4 + number) * 7 % 83).unwrap())).collect()
}

fn whole(model: &Model, text: &[u32]) -> Vec<f32> {
    let tokens = Tokens::new(text.to_vec(), text.len(), model.config().vocab).unwrap();
    model.logits(&model.forward(&tokens)).data().to_vec()
}

fn near(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() < 2e-5 * largest, "{what}: {f}, expected {e}");
    }
}

#[test]
fn steps_of_ragged_sequences_agree_with_whole_passes() {
    let models = ["v3", "v3-yarn", "v3-no-q-lora", "v2"].map(|name| (name, reference(name)));
    for (name, model) in models.iter().map(|(n, m)| (*n, m)).chain([("mtp", &mtp_model())]) {
        let vocab = model.config().vocab;
        let texts = [text(0, 50), text(1, 31), text(2, 44)];
        let expected = [0, 1, 2].map(|at| whole(model, &texts[at]));
        let mut pages = Pages::new(model.config(), BLOCK, 83);
        let mut known = [0; 3];
        // New tokens of each sequence a step; sequences come and go.
        for step in [[5, 0, 1], [1, 3, 1], [1, 1, 40], [20, 1, 1], [1, 1, 1], [22, 25, 0]] {
            let taking: Vec<usize> = (0..3).filter(|at| step[*at] > 0).collect();
            let tables = [0, 1, 2].map(blocks);
            let spans: Vec<Span<'_>> = taking
                .iter()
                .map(|&at| Span {
                    tokens: &texts[at][known[at]..known[at] + step[at]],
                    from: known[at],
                    blocks: &tables[at],
                    logits: step[at],
                })
                .collect();
            let logits = model.advance(&spans, &mut pages).unwrap().logits;
            let mut row = 0;
            for &at in &taking {
                let found = &logits.data()[row * vocab..][..step[at] * vocab];
                let expected = &expected[at][known[at] * vocab..][..step[at] * vocab];
                near(found, expected, &format!("{name}, sequence {at} from {}", known[at]));
                row += step[at];
                known[at] += step[at];
            }
        }
        assert_eq!(known, [50, 31, 44]);
    }
}

/// Behind YaRN's stretch of the context, over several parts of a long span. All experts are chosen, as rounding would
/// decide between two that are as good.
#[test]
fn long_contexts_agree_with_and_without_cached_tokens() {
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "deepseek_v3", "vocab_size": 48, "hidden_size": 16, "intermediate_size": 24,
        "moe_intermediate_size": 8, "num_hidden_layers": 2, "first_k_dense_replace": 1, "num_attention_heads": 1,
        "q_lora_rank": 8, "kv_lora_rank": 16, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4,
        "n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1,
        "initializer_range": 0.3, "max_position_embeddings": 4096, "rope_theta": 10000.0,
        "rope_scaling": {"type": "yarn", "factor": 32, "original_max_position_embeddings": 128, "beta_fast": 32,
            "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}
    }))
    .unwrap();
    let model = Model::new(config.clone(), Weights::random(&config, 3));
    let (text, len) = (text(0, 3000), 3000);
    let expected = whole(&model, &text);
    let table: Vec<Block> = (0..47).map(Block).collect();
    let mut known = 0;
    let mut pages = Pages::new(model.config(), 64, 47);
    for count in [2500, 400, 96, 1, 1, 1, 1] {
        let tokens = &text[known..known + count];
        let span = Span { tokens, from: known, blocks: &table, logits: count };
        let found = model.advance(&[span], &mut pages).unwrap().logits;
        near(found.data(), &expected[known * 48..][..count * 48], &format!("from {known}"));
        known += count;
    }
    assert_eq!(known, len);
}

#[test]
fn drafts_are_those_that_training_scores() {
    let model = mtp_model();
    let (text, table, vocab) = (text(5, 30), blocks(0), model.config().vocab);
    let mut pages = Pages::new(model.config(), BLOCK, 83);
    let all = Span { tokens: &text, from: 0, blocks: &table, logits: 0 };
    let hidden = model.advance(&[all], &mut pages).unwrap().hidden;
    let width = model.config().hidden;
    let mut drafts = Vec::new();
    for (from, to) in [(0, 20), (20, 21), (21, 28)] {
        let tokens = &text[from + 1..to + 1];
        let span = Span { tokens, from, blocks: &table, logits: to - from };
        let states = hidden.data()[from * width..to * width].to_vec();
        let states = ff2_model::Tensor::new(&[to - from, width], states).unwrap();
        drafts.extend_from_slice(model.draft(&[span], &states, &mut pages).unwrap().data());
    }
    // The mean cross entropy of the tokens after next is the module's loss.
    let losses = drafts.chunks(vocab).zip(&text[2..]).map(|(row, target)| {
        let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        total.ln() - f64::from(row[*target as usize])
    });
    let mean = losses.sum::<f64>() / 28.0;
    let tokens = Tokens::new(text.clone(), text.len(), vocab).unwrap();
    let expected = model.step(&tokens, 1.0, &mut Weights::zeros(model.config())).unwrap().mtp;
    assert!((mean / expected - 1.0).abs() < 1e-5, "{mean}, expected {expected}");
}

#[test]
fn spans_that_do_not_fit_are_refused() {
    let model = mtp_model();
    let mut pages = Pages::new(model.config(), BLOCK, 4);
    let good = [Block(0), Block(3)];
    let mut refused = |tokens: &[u32], from, blocks: &[Block], logits, words: &str| {
        let span = Span { tokens, from, blocks, logits };
        let error = model.advance(&[span], &mut pages).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&[1, 2], 5, &good, 0, "2 tokens from 5 on in blocks for 6");
    refused(&[1], usize::MAX, &good, 0, "in blocks for 6");
    refused(&[1], 0, &[Block(4)], 0, "block 4, expected less than 4");
    refused(&[48], 0, &good, 0, "token 48, expected less than the vocabulary's 48");
    refused(&[1], 0, &good, 2, "logits of 2 among 1");
    refused(&[], 0, &good, 0, "among 0");
}

#[test]
fn blocks_are_copied_and_carried_as_they_are() {
    let model = mtp_model();
    let mut pages = Pages::new(model.config(), BLOCK, 4);
    let text = text(1, 6);
    let span = Span { tokens: &text, from: 0, blocks: &[Block(0), Block(1)], logits: 0 };
    model.advance(&[span], &mut pages).unwrap();
    pages.copy(Block(1), Block(2));
    let carried: Vec<f32> = pages.read(Block(0)).flatten().copied().collect();
    let mut from = carried.as_slice();
    for part in pages.read_mut(Block(3)) {
        let (now, later) = from.split_at(part.len());
        part.copy_from_slice(now);
        from = later;
    }
    let mut next = |blocks: &[Block]| {
        let span = Span { tokens: &[5], from: 6, blocks, logits: 1 };
        model.advance(&[span], &mut pages).unwrap().logits
    };
    let expected = next(&[Block(0), Block(1), Block(0)]);
    drop(expected);
    let one = next(&[Block(3), Block(2), Block(1)]);
    let full = whole(&model, &[text, vec![5]].concat());
    near(one.data(), &full[6 * 48..], "copied blocks");
}
