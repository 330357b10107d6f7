#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! Several processes train one model: as one would, and they go on as another number of them.

mod common;

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use common::{Bench, steps};

/// A process for each rank, in the environment that the scheduler makes. Gives what each said.
fn run(bench: &Bench, world: usize, folder: &Path, sets: &[&str]) -> Vec<Output> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: usize| -> Child {
        let mut command: Command = bench.command();
        command.args(["run", "--json", "--config"]).arg(bench.path("run.toml"));
        command.arg("--set").arg(format!("out={}", folder.display()));
        command.args(sets.iter().flat_map(|set| ["--set", set]));
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", world.to_string());
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        command.env("FF2_CHECKPOINT", folder.join("checkpoints"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let ranks: Vec<Child> = (0..world).map(start).collect();
    ranks.into_iter().map(|rank| rank.wait_with_output().unwrap()).collect()
}

fn losses(output: &str) -> Vec<[f64; 2]> {
    let number = |step: &serde_json::Value, key: &str| step[key].as_f64().unwrap();
    let steps = steps(output);
    steps.iter().map(|step| [number(step, "loss"), number(step, "grad_norm")]).collect()
}

fn assert_near(found: &[[f64; 2]], expected: &[[f64; 2]]) {
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found[0] / expected[0] - 1.0).abs();
        assert!(error < 1e-5, "step {step}: loss {} for {}: {error:e}", found[0], expected[0]);
    }
}

#[test]
fn two_processes_learn_as_one_and_one_goes_on_where_two_were() {
    let bench = Bench::new();
    let alone = losses(&bench.ok(bench.run(&["steps=20"], &[])));
    assert_eq!(alone.len(), 20);
    let plans =
        [["parallel.expert_ranks=1", "parallel.zero1=false"], ["parallel.expert_ranks=2", ""]];
    for (number, plan) in plans.iter().enumerate() {
        let folder = bench.path(&format!("out-{number}"));
        let sets = |steps: &'static str| {
            let plan = plan.iter().copied().filter(|set| !set.is_empty());
            plan.chain([steps]).collect::<Vec<_>>()
        };
        let mut outputs = run(&bench, 2, &folder, &sets("steps=20")).into_iter();
        let first = bench.ok(outputs.next().unwrap());
        assert_near(&losses(&first), &alone);
        // Rank 0 speaks for all.
        assert_eq!(bench.ok(outputs.next().unwrap()), "");
        assert!(!folder.join("checkpoints/.ranks-1.key").exists());
    }
    // Checkpoints are whole ones: a single process, and two, go on from them as that which was always alone.
    std::fs::remove_dir_all(bench.path("out-1/checkpoints/step-00000020")).unwrap();
    let again = run(&bench, 1, &bench.path("out-1"), &["steps=20"]).remove(0);
    assert_near(&losses(&bench.ok(again)), &alone[10..]);
    std::fs::remove_dir_all(bench.path("out/checkpoints/step-00000020")).unwrap();
    std::fs::rename(bench.path("out"), bench.path("out-2")).unwrap();
    let again = run(&bench, 2, &bench.path("out-2"), &["steps=20"]).remove(0);
    assert_near(&losses(&bench.ok(again)), &alone[10..]);
}

#[test]
fn what_cannot_be_divided_is_refused_by_all() {
    let bench = Bench::new();
    let folder = bench.path("out");
    let refused = |world: usize, set: &str, expected: &str| {
        for output in run(&bench, world, &folder, &[set]) {
            bench.refused(output, expected);
        }
    };
    refused(2, "data.batch=3", "data.batch is 3, expected a multiple of the 2 ranks");
    refused(2, "parallel.expert_ranks=3", "4 routed experts cannot be divided over 3 ranks");
}
