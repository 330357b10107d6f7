#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! Text files to a model: what is learned, and that a run that was interrupted is the run that was not.

mod common;

use std::{collections::BTreeMap, fs};

use common::{Bench, history, steps};
use serde_json::Value;

/// The tokens of a shard of the format's version 1.
fn tokens(path: &std::path::Path) -> Vec<u16> {
    let bytes = fs::read(path).unwrap();
    let count = u64::from_le_bytes(bytes[24..32].try_into().unwrap()) as usize;
    bytes[88..][..2 * count].as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect()
}

/// Nats a token of the held-out text, by the frequencies of the text that was learned, one more of each.
fn unigram(bench: &Bench) -> f64 {
    let (train, heldout) = (
        tokens(&bench.path("data/train-00000.ff2tokens")),
        tokens(&bench.path("data/heldout-00000.ff2tokens")),
    );
    let mut counts: BTreeMap<u16, u32> = BTreeMap::new();
    train.iter().for_each(|token| *counts.entry(*token).or_default() += 1);
    let total = (train.len() + 384) as f64;
    let nats = |token: &u16| -(f64::from(counts.get(token).unwrap_or(&0) + 1) / total).ln();
    heldout.iter().map(nats).sum::<f64>() / heldout.len() as f64
}

#[test]
fn a_tiny_model_learns_a_text_and_its_folder_is_one_of_others() {
    let bench = Bench::new();
    let output =
        bench.ok(bench.run(&["steps=240", "checkpoint.every=0", "loss.mtp_weight=0.1"], &[]));
    let steps = steps(&output);
    assert_eq!(steps.len(), 240);
    let loss = |at: usize| steps[at]["loss"].as_f64().unwrap();
    let last: f64 = (230..240).map(loss).sum::<f64>() / 10.0;
    let unigram = unigram(&bench);
    let heldout = &steps[239]["heldout"];
    assert!(loss(0) > 5.5, "an untrained model knows nothing: {}", loss(0));
    assert!(last < 0.6 * unigram, "learned {last}, unigram {unigram}");
    let score = heldout["loss"].as_f64().unwrap();
    assert!(score < 0.95 * unigram, "held out {score}, unigram {unigram}");
    assert!(steps[0]["mtp_loss"].as_f64() > steps[239]["mtp_loss"].as_f64());
    assert!(steps.iter().all(|step| step["mfu"].as_f64().unwrap() > 0.0));

    let (from, to) = (bench.path("out/checkpoints"), bench.path("model"));
    let export = |more: &[&str]| {
        let mut command = bench.command();
        command.args(["export", "--checkpoint"]).arg(&from).arg("--out").arg(&to).args(more);
        bench.ok(command.output().unwrap())
    };
    export(&[]);
    let read = |file: &str| -> Value {
        serde_json::from_slice(&fs::read(to.join(file)).unwrap()).unwrap()
    };
    assert_eq!(read("config.json")["model_type"], "deepseek_v3");
    assert_eq!(read("config.json")["eos_token_id"], read("generation_config.json")["eos_token_id"]);
    assert_eq!(
        fs::read(to.join("tokenizer.json")).unwrap(),
        fs::read(bench.path("data/tokenizer.json")).unwrap()
    );
    // The folder is a model to go on from, and knows what was learned.
    let config = fs::read_to_string(bench.path("run.toml")).unwrap();
    let (head, tail) = (config.find("[model]").unwrap(), config.find("[optimizer]").unwrap());
    let config = format!("{}[model]\nfrom = {to:?}\n{}", &config[..head], &config[tail..]);
    fs::write(bench.path("run.toml"), config).unwrap();
    let sets = [format!("out={}", bench.path("second").display()), "steps=1".to_owned()];
    let again = bench.ok(bench.run(&[&sets[0], &sets[1]], &[]));
    let first = common::steps(&again)[0]["loss"].as_f64().unwrap();
    assert!(first < last + 0.7, "{first} after {last}");
    export(&["--bf16"]);
    assert_eq!(read("config.json")["dtype"], "bfloat16");
}

#[test]
fn a_run_in_two_parts_is_the_run_in_one() {
    let bench = Bench::new();
    let sets = ["data.accumulate=2", "checkpoint.keep=3"];
    let expected = history(&steps(&bench.ok(bench.run(&sets, &[]))));
    assert_eq!(expected.len(), 40);
    let checkpoints = bench.path("out/checkpoints");
    let there = || {
        let all = fs::read_dir(&checkpoints).unwrap();
        let mut all: Vec<_> = all.map(|entry| entry.unwrap().file_name()).collect();
        all.sort();
        all
    };
    assert_eq!(there(), ["step-00000020", "step-00000030", "step-00000040"], "the newest three");
    // As if it had been killed after step 20, in the middle of the next checkpoint.
    fs::rename(checkpoints.join("step-00000030"), checkpoints.join(".step-00000030")).unwrap();
    fs::remove_dir_all(checkpoints.join("step-00000040")).unwrap();
    let again = history(&steps(&bench.ok(bench.run(&sets, &[]))));
    assert_eq!(again, expected[20..]);
    let kept = fs::read_to_string(bench.path("out/metrics.jsonl")).unwrap();
    assert_eq!(history(&steps(&kept)), expected);
    assert_eq!(there(), ["step-00000020", "step-00000030", "step-00000040"]);
    // A run that is complete does nothing more.
    assert_eq!(steps(&bench.ok(bench.run(&sets, &[]))).len(), 0);
}

#[test]
fn a_dataset_is_read_as_training_reads_it() {
    let bench = Bench::new();
    let read = |batches: &str| {
        let mut command = bench.command();
        command.args(["read", "--json", "--sequence", "48", "--batch", "4", "--batches", batches]);
        command.arg("--data").arg(bench.path("data")).output().unwrap()
    };
    // More than an epoch: it goes on.
    let found: serde_json::Value = serde_json::from_str(&bench.ok(read("200"))).unwrap();
    assert_eq!(found["tokens"], 200 * 4 * 48);
    assert!(found["tokens_per_s"].as_f64().unwrap() > 0.0);
    bench.refused(read("0"), "expected 1 or more");
}

/// The bound of docs/TRAINING.md.
#[test]
fn the_loss_with_products_of_bf16_follows_the_one_with_f32() {
    let bench = Bench::new();
    let run = |precision: &str| {
        let out = format!("out={}", bench.path(precision).display());
        let set = format!("precision={precision}");
        let steps = steps(&bench.ok(bench.run(&[&out, &set, "steps=40", "evaluate.every=0"], &[])));
        steps.iter().map(|step| step["loss"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let (expected, found) = (run("f32"), run("bf16"));
    assert!(expected[39] < 0.8 * expected[0], "it learns: {expected:?}");
    let errors: Vec<f64> = found.iter().zip(&expected).map(|(f, e)| (f / e - 1.0).abs()).collect();
    assert!(errors.iter().all(|error| *error < 0.02), "{errors:?}");
    assert!(errors.iter().any(|error| *error > 1e-6), "nothing was rounded");
}

/// Questions are noise that nobody can learn to say; the answer is always the same.
#[test]
fn of_conversations_the_answers_are_learned() {
    let bench = Bench::new();
    let noise = |n: u64| format!("{:x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let line = |n: u64| {
        let question = format!("{} {} {}?", noise(n), noise(n + 1000), noise(n + 2000));
        let message =
            |role: &str, content: &str| serde_json::json!({ "role": role, "content": content });
        let chat = [message("user", &question), message("assistant", "forty-two, of course")];
        serde_json::json!({ "messages": chat }).to_string() + "\n"
    };
    let text = bench.path("chats.jsonl");
    fs::write(&text, (0..200).map(line).collect::<String>()).unwrap();
    bench.ok(bench.tokenize(&[&text]));
    let steps = steps(&bench.ok(bench.run(&["steps=60", "checkpoint.every=0"], &[])));
    let losses: Vec<f64> = steps.iter().map(|step| step["loss"].as_f64().unwrap()).collect();
    let last = losses[55..].iter().sum::<f64>() / 5.0;
    assert!(losses[0] > 4.0 && last < 0.3, "{} to {last}", losses[0]);
    assert!(steps[59]["heldout"]["loss"].as_f64().unwrap() < 0.3, "{:?}", steps[59]);
}
