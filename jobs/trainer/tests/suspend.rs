#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! The contract of docs/JOBS.md, by the code that agents run jobs with.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use common::{Bench, history, steps};
use ff2_task::{
    CheckpointSlot, Control, JobFolder, MakeRoom, Outcome, RunSpec, control, supervise,
    supervise::Suspension,
};

fn spec(bench: &Bench, name: &str, attempt: u32) -> RunSpec {
    let (config, out) = (bench.path("run.toml"), bench.path(name));
    let text = |path: &Path| path.display().to_string();
    let mut command = vec![env!("CARGO_BIN_EXE_ff2-train").to_owned(), "run".to_owned()];
    command.extend(["--json", "--config"].map(str::to_owned));
    command.push(text(&config));
    for set in [format!("out={}", text(&out)), "steps=100000".into(), "data.accumulate=3".into()] {
        command.extend(["--set".to_owned(), set]);
    }
    RunSpec {
        job: 1,
        name: "train".into(),
        attempt,
        command,
        work_dir: bench.path(""),
        env: BTreeMap::new(),
        ranks: 1,
        first_rank: 0,
        world_size: 1,
        node_rank: 0,
        nodes: 2,
        master_addr: "127.0.0.1".into(),
        master_port: 29_500,
        gpus: vec![],
        folder: bench.path(&format!("{name}-job")),
        checkpoint: bench.path(&format!("{name}-checkpoints")),
        signal: None,
        grace_s: 60,
        user: None,
        script: None,
        output: None,
        errors: None,
        until_boot_ms: None,
    }
}

/// Supervises the attempt, and lets `meanwhile` give orders.
fn supervised(spec: &RunSpec, meanwhile: impl FnOnce(&Control) + Send) -> Outcome {
    let (control, orders) = control();
    thread::scope(|scope| {
        scope.spawn(move || meanwhile(&control));
        supervise(spec, orders, None).unwrap()
    })
}

fn wait_for(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain");
        thread::sleep(Duration::from_millis(5));
    }
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The last one may be half a line.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    steps(whole)
}

/// One test, because a supervisor takes all children of its process for its own.
#[test]
fn a_job_that_makes_room_goes_on_as_if_nothing_had_been() {
    let bench = Bench::new();
    let metrics = bench.path("out/metrics.jsonl");
    for attempt in 1..=2u32 {
        let spec = spec(&bench, "out", attempt);
        let before = lines(&metrics).len();
        let outcome = supervised(&spec, |control| {
            wait_for(|| lines(&metrics).len() >= before + 4);
            control.suspend(MakeRoom::within(Duration::from_secs(60)));
        });
        let log = fs::read_to_string(JobFolder::new(&spec.folder, attempt).log(0)).unwrap();
        let Outcome::Suspended { how, .. } = outcome else { panic!("{outcome:?}: {log}") };
        assert_eq!(how, Suspension::Acknowledged, "{log}");
        let word = JobFolder::new(&spec.folder, attempt).state_word().unwrap();
        assert!(word.starts_with(&format!("step {}, loss ", lines(&metrics).len())), "{word}");
    }
    let found = history(&lines(&metrics));
    assert!(found.len() >= 8);

    // One that nobody asked; a slot an hour away keeps it from saving each ten steps.
    let reference = spec(&bench, "reference", 1);
    fs::create_dir_all(&reference.folder).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let (now_ms, hour_ms) = (u64::try_from(now.as_millis()).unwrap(), 3_600_000);
    let slot = CheckpointSlot {
        every_ms: hour_ms,
        phase_ms: (now_ms + hour_ms / 2) % hour_ms,
        length_ms: 1000,
        bytes_per_s: 1 << 30,
    };
    JobFolder::new(&reference.folder, 1).put_slot(slot, 1).unwrap();
    let metrics = bench.path("reference/metrics.jsonl");
    let outcome = supervised(&reference, |control| {
        wait_for(|| lines(&metrics).len() >= found.len().max(12));
        control.stop();
    });
    assert_eq!(outcome, Outcome::Stopped);
    assert_eq!(history(&lines(&metrics))[..found.len()], found);
    let saved = fs::read_dir(&reference.checkpoint).unwrap().count();
    assert!(saved <= 1, "at its end at most, when it was stopped: {saved}");

    // A slot that comes every 200 ms, and lets it write slowly: it saves in the slot, not every ten steps.
    let slow = RunSpec { attempt: 2, ..reference };
    let slot = CheckpointSlot { every_ms: 200, phase_ms: 50, bytes_per_s: 2 << 20, ..slot };
    JobFolder::new(&slow.folder, 2).put_slot(slot, 1).unwrap();
    let newest = || fs::read_dir(&slow.checkpoint).unwrap().map(|e| e.unwrap().file_name()).max();
    let before = newest();
    supervised(&slow, |control| {
        wait_for(|| newest() > before);
        control.stop();
    });
}
