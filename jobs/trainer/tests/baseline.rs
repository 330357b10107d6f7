#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! Models that count: what a run and the command say of them.

mod common;

use std::path::Path;

use common::{Bench, steps};
use serde_json::Value;

fn baseline(bench: &Bench, more: &[&str]) -> std::process::Output {
    let mut command = bench.command();
    command.args(["baseline", "--data"]).arg(bench.path("data")).args(more).output().unwrap()
}

#[test]
fn a_run_is_compared_at_the_tokens_that_the_command_is_asked_for() {
    let bench = Bench::new();
    let sets = ["steps=2", "evaluate.baseline=true", "evaluate.sequences=5"];
    let output = bench.ok(bench.run(&sets, &[]));
    let told = |output: &str| -> Value {
        let mut lines = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find_map(|line| line.get("baseline").cloned()).unwrap()
    };
    let compared = told(&output);
    assert_eq!(compared["model"], steps(&output)[1]["heldout"]);
    assert_eq!(compared["is_below_both"], false, "two steps teach nothing: {compared}");

    let same = ["--json", "--sequence", "48", "--sequences", "5"];
    let alone: Value = serde_json::from_str(&bench.ok(baseline(&bench, &same))).unwrap();
    let score = |of: &Value, model: &str| of[model]["bits_per_byte"].as_f64().unwrap();
    for model in ["bigram", "trigram"] {
        assert_eq!(alone[model], compared[model]);
        assert!((1.0..8.0).contains(&score(&alone, model)), "{alone}");
    }
    assert!(score(&alone, "trigram") < score(&alone, "bigram"), "{alone}");
    let others = bench.ok(baseline(&bench, &["--json", "--sequence", "48"]));
    assert_ne!(serde_json::from_str::<Value>(&others).unwrap(), alone, "more tokens are asked for");

    // A run that is complete tells it again.
    assert_eq!(told(&bench.ok(bench.run(&sets, &[]))), compared);
    assert!(
        !bench.ok(bench.run(&["steps=2"], &[])).contains("baseline"),
        "only if it is asked for"
    );
}

#[test]
fn without_held_out_text_there_is_nothing_to_compare() {
    let bench = Bench::new();
    bench.refused(baseline(&bench, &["--sequence", "1"]), "--sequence 1, expected at least 2");
    let licence = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../LICENSE");
    let mut command = bench.command();
    command.args(["tokenize", "--vocab", "384", "--heldout", "0", "--out"]);
    bench.ok(command.arg(bench.path("data")).arg(licence).output().unwrap());
    bench.refused(baseline(&bench, &[]), "nothing is held out; expected text");
    let run = bench.run(&["evaluate.baseline=true"], &[]);
    bench.refused(run, "evaluate.baseline is true, but nothing of");
    assert!(!bench.path("out/checkpoints").exists(), "refused before it trains");
}
