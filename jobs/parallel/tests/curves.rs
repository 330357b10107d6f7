#![allow(clippy::unwrap_used, reason = "a test may panic")]

//! However a model is divided over ranks, it learns as on one: the same loss at every step.

#[path = "../../collectives/tests/common/mod.rs"]
mod common;

use common::ranks;
use ff2_collectives::Communicator;
use ff2_model::{AdamW, Model, ModelConfig, Parameters, Tokens, Weights};
use ff2_parallel::{Parallel, ParallelError, Plan, Portion, Settings};

const STEPS: usize = 20;
const SEQUENCES: usize = 8;
const LEN: usize = 12;
const VOCAB: usize = 64;
const RATE: f32 = 3e-3;
const CLIP: f64 = 0.5;
const MTP: f32 = 0.3;
const SPEED: f32 = 1e-3;

fn model() -> Model {
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "deepseek_v3", "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48,
        "moe_intermediate_size": 16, "num_hidden_layers": 3, "first_k_dense_replace": 1, "num_attention_heads": 2,
        "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
        "n_shared_experts": 1, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
        "num_nextn_predict_layers": 1, "initializer_range": 0.1
    }))
    .unwrap();
    Model::new(config.clone(), Weights::random(&config, 5))
}

/// Sequences that can be learned: each token follows from the one before, now and then by chance.
fn batch(step: usize) -> Vec<u32> {
    let mut state = 77 + step as u64;
    let mut chance = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let mut ids = Vec::new();
    for _ in 0..SEQUENCES {
        let mut id = chance() % VOCAB as u32;
        for _ in 0..LEN {
            ids.push(id);
            id = if chance().is_multiple_of(8) { chance() } else { id * 5 + 3 } % VOCAB as u32;
        }
    }
    ids
}

fn tokens(ids: &[u32]) -> Tokens {
    Tokens::new(ids.to_vec(), LEN, VOCAB).unwrap()
}

/// Losses and the norms of gradients of one rank, by the model's own optimizer.
fn alone() -> (Vec<(f64, f64, f64)>, Model) {
    let mut model = model();
    let mut optimizer = AdamW::new(model.config());
    let mut curve = Vec::new();
    for step in 0..STEPS {
        let mut grad = Weights::zeros(model.config());
        let loss = model.step(&tokens(&batch(step)), MTP, &mut grad).unwrap();
        let mut squares = 0.0;
        grad.visit("", &mut |_, tensor| {
            squares += tensor.data().iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
        });
        let norm = squares.sqrt();
        let scale = if norm > CLIP { (CLIP / norm) as f32 } else { 1.0 };
        grad.visit_mut("", &mut |_, tensor| {
            tensor.data_mut().iter_mut().for_each(|g| *g *= scale);
        });
        optimizer.step(model.weights_mut(), &grad, RATE);
        model.balance(&loss.loads, SPEED).unwrap();
        curve.push((loss.main, loss.mtp, norm));
    }
    (curve, model)
}

/// A whole model and its moments.
struct State {
    steps: i32,
    weights: Weights,
    first: Weights,
    second: Weights,
}

impl State {
    /// Of the portions of all ranks, which must be each number of the model once.
    fn of(steps: i32, portions: impl IntoIterator<Item = Portion>) -> Self {
        // No number of them is none, so what is left out shows.
        let mut missing = Weights::zeros(model().config());
        missing.visit_mut("", &mut |_, tensor| tensor.data_mut().fill(f32::NAN));
        let zeros = Weights::zeros(model().config());
        let mut state = Self { steps, weights: missing, first: zeros.clone(), second: zeros };
        let mut total = 0;
        for portion in portions {
            let Portion { start, weights, first, second, .. } = portion;
            total += weights.len();
            let into = [&mut state.weights, &mut state.first, &mut state.second];
            for (into, numbers) in into.into_iter().zip([weights, first, second]) {
                into.visit_mut("", &mut |name, tensor| {
                    if name == portion.name {
                        assert_eq!(tensor.shape(), portion.shape);
                        tensor.data_mut()[start..start + numbers.len()].copy_from_slice(&numbers);
                    }
                });
            }
        }
        assert_eq!(total, state.weights.len());
        state.weights.visit("", &mut |name, tensor| {
            assert!(tensor.data().iter().all(|x| !x.is_nan()), "{name} is not whole");
        });
        state
    }
}

/// A run of some of the steps, from a state of another or the start. Gives its curve and the rank's portions.
fn part(
    all: Communicator,
    plan: Plan,
    steps: std::ops::Range<usize>,
    from: Option<&State>,
) -> (Vec<f64>, Vec<Portion>) {
    let (rank, world) = (all.rank(), all.ranks());
    let mut model = model();
    if let Some(from) = from {
        *model.weights_mut() = from.weights.clone();
    }
    let mut parallel = Parallel::new(all, plan, Settings::default(), &mut model).unwrap();
    if let Some(from) = from {
        parallel.restore(from.steps, &from.first, &from.second);
    }
    let mut curve = Vec::new();
    for step in steps {
        let ids = batch(step);
        let own = &ids[rank * ids.len() / world..(rank + 1) * ids.len() / world];
        let found = parallel.gradients(&model, &[tokens(own)], MTP).unwrap();
        let loads = found.loss.loads.clone();
        curve.push(found.loss.main);
        parallel.update(&mut model, found, RATE, CLIP).unwrap();
        model.balance(&loads, SPEED).unwrap();
    }
    let portions = parallel.portions(&model);
    parallel.close().unwrap();
    (curve, portions)
}

struct Run {
    curve: Vec<(f64, f64, f64)>,
    model: Model,
    moments: usize,
}

fn run(all: Communicator, plan: Plan, pieces: usize) -> Run {
    let (rank, world) = (all.rank(), all.ranks());
    let mut model = model();
    let mut parallel = Parallel::new(all, plan, Settings::default(), &mut model).unwrap();
    let mut curve = Vec::new();
    for step in 0..STEPS {
        let ids = batch(step);
        let own = &ids[rank * ids.len() / world..(rank + 1) * ids.len() / world];
        let batches: Vec<_> = own.chunks(own.len() / pieces).map(tokens).collect();
        let found = parallel.gradients(&model, &batches, MTP).unwrap();
        let loads = found.loss.loads.clone();
        curve.push((found.loss.main, found.loss.mtp, found.norm));
        parallel.update(&mut model, found, RATE, CLIP).unwrap();
        model.balance(&loads, SPEED).unwrap();
    }
    let moments = parallel.moments_len();
    parallel.close().unwrap();
    Run { curve, model, moments }
}

/// Runs the plan and compares each step, and what came of the weights.
fn compare(world: usize, plan: Plan, pieces: usize) -> Vec<Run> {
    let (expected, reference) = alone();
    let runs = ranks(world, |all| run(all, plan, pieces));
    for run in &runs {
        assert_eq!(run.curve, runs[0].curve, "ranks say different things");
        for (step, (found, expected)) in run.curve.iter().zip(&expected).enumerate() {
            for (found, expected) in
                [(found.0, expected.0), (found.1, expected.1), (found.2, expected.2)]
            {
                let error = (found / expected - 1.0).abs();
                assert!(error < 1e-5, "{plan:?} step {step}: {found} for {expected}: {error:e}");
            }
        }
    }
    // It learned, so the curve says something.
    assert!(expected[STEPS - 1].0 < expected[0].0 * 0.9, "{expected:?}");
    let mut weights = std::collections::BTreeMap::new();
    reference.weights().visit("", &mut |name, tensor| {
        weights.insert(name, tensor.clone());
    });
    for run in &runs {
        run.model.weights().visit("", &mut |name, tensor| {
            let largest = weights[&name].data().iter().fold(1e-3f32, |max, x| max.max(x.abs()));
            for (found, expected) in tensor.data().iter().zip(weights[&name].data()) {
                assert!((found - expected).abs() < 1e-2 * largest, "{name}: {found}, {expected}");
            }
        });
    }
    runs
}

const SMALL: Plan = Plan { expert_ranks: 1, zero1: false, overlap: true, bucket: 5000 };

#[test]
fn data_parallel() {
    for world in [2, 4] {
        let runs = compare(world, SMALL, 1);
        let bits = |run: &Run| {
            let mut all = Vec::new();
            run.model.weights().visit("", &mut |_, t| all.extend_from_slice(t.data()));
            all.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert!(runs.iter().all(|run| bits(run) == bits(&runs[0])), "{world}: weights differ");
    }
}

#[test]
fn data_parallel_without_overlap_in_pieces() {
    compare(2, Plan { overlap: false, ..SMALL }, 2);
}

#[test]
fn sharded_optimizer() {
    let whole = compare(1, SMALL, 1)[0].moments;
    for world in [2, 4] {
        let runs = compare(world, Plan { zero1: true, ..SMALL }, 1);
        assert_eq!(runs.iter().map(|run| run.moments).sum::<usize>(), whole, "{world}");
        assert!(runs.iter().all(|run| run.moments < whole / world + 100), "{world}");
    }
}

#[test]
fn expert_parallel() {
    let whole = model().weights().len();
    // Three blocks with 8 experts of three matrices each.
    let experts = 3 * 8 * 3 * 16 * 32;
    for world in [2, 4] {
        let runs = compare(world, Plan { expert_ranks: world, ..SMALL }, 1);
        let held = whole - experts + experts / world;
        assert!(runs.iter().all(|run| run.model.weights().len() == held), "{world}");
    }
}

#[test]
fn all_together() {
    for (world, expert_ranks) in [(2, 2), (4, 2), (4, 4)] {
        compare(world, Plan { expert_ranks, zero1: true, ..SMALL }, 2);
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let plans = [
        (4, Plan { expert_ranks: 2, zero1: true, ..SMALL }),
        (1, SMALL),
        (2, Plan { expert_ranks: 2, ..SMALL }),
        (2, Plan { zero1: true, ..SMALL }),
    ];
    let (expected, _) = alone();
    let (mut state, mut curve) = (None, Vec::new());
    for (place, (world, plan)) in plans.into_iter().enumerate() {
        let steps = place * 5..(place + 1) * 5;
        let end = steps.end as i32;
        let found = ranks(world, |all| part(all, plan, steps.clone(), state.as_ref()));
        curve.extend(found[0].0.iter().copied());
        state = Some(State::of(end, found.into_iter().flat_map(|rank| rank.1)));
    }
    for (step, (found, expected)) in curve.iter().zip(&expected).enumerate() {
        let error = (found / expected.0 - 1.0).abs();
        assert!(error < 1e-5, "step {step}: {found} for {}: {error:e}", expected.0);
    }
    assert_eq!(curve.len(), STEPS);
}

#[test]
fn the_same_ranks_go_on_to_the_bit() {
    let plan = Plan { expert_ranks: 2, zero1: true, ..SMALL };
    let through = ranks(2, |all| part(all, plan, 0..8, None)).swap_remove(0).0;
    let portions = ranks(2, |all| part(all, plan, 0..4, None)).into_iter().flat_map(|rank| rank.1);
    let state = State::of(4, portions);
    let later = ranks(2, |all| part(all, plan, 4..8, Some(&state))).swap_remove(0).0;
    assert_eq!(through[4..], later);
}

#[test]
fn experts_that_the_ranks_do_not_divide_are_refused() {
    for expert_ranks in [3, 16] {
        let errors = ranks(2, |all| {
            let plan = Plan { expert_ranks, ..SMALL };
            Parallel::new(all, plan, Settings::default(), &mut model()).unwrap_err().to_string()
        });
        let expected = format!("8 routed experts cannot be divided over {expert_ranks} ranks");
        assert!(errors.iter().all(|error| error.contains(&expected)), "{errors:?}");
    }
    let mut weights = model().weights().clone();
    assert!(weights.keep_experts(0, 3).unwrap_err().to_string().contains("8 routed experts"));
    let error = Plan { bucket: 0, ..SMALL }.check(model().config(), 2).unwrap_err();
    assert!(matches!(error, ParallelError::Zero("bucket")));
}
