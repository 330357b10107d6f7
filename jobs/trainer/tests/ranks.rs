#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! Several processes train one model: as one would, to the bit again after they made room, and as another number of
//! them.

mod common;

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{Bench, history, steps};
use serde_json::Value;

/// A process for each rank, in the environment that the scheduler makes. `sets` are those of the rank.
fn start<S: AsRef<str>>(
    bench: &Bench,
    world: usize,
    out: &Path,
    sets: impl Fn(usize) -> Vec<S>,
) -> Vec<Child> {
    start_at("127.0.0.1", bench, world, out, sets)
}

/// Rank 0 is at the address `master`.
fn start_at<S: AsRef<str>>(
    master: &str,
    bench: &Bench,
    world: usize,
    out: &Path,
    sets: impl Fn(usize) -> Vec<S>,
) -> Vec<Child> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: usize| {
        let mut command: Command = bench.command();
        command.args(["run", "--json", "--config"]).arg(bench.path("run.toml"));
        command.arg("--set").arg(format!("out={}", out.display()));
        command
            .args(sets(rank).iter().flat_map(|set| ["--set".to_owned(), set.as_ref().to_owned()]));
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", world.to_string());
        command.env("MASTER_ADDR", master).env("MASTER_PORT", port.to_string());
        command.env("FF2_CHECKPOINT", out.join("checkpoints"));
        command.env("FF2_SLOT", out.join("slot"));
        command.env("FF2_SUSPEND", out.join("suspend")).env("FF2_ACK", out.join("acknowledged"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    (0..world).map(start).collect()
}

/// What each rank said, in order.
fn ends(ranks: Vec<Child>) -> Vec<Output> {
    ranks.into_iter().map(|rank| rank.wait_with_output().unwrap()).collect()
}

/// All ranks end well; what rank 0 said, who speaks for all.
fn together(bench: &Bench, world: usize, out: &Path, sets: &[&str]) -> String {
    all_well(bench, start(bench, world, out, |_| sets.to_vec()))
}

fn all_well(bench: &Bench, ranks: Vec<Child>) -> String {
    let mut said = ends(ranks).into_iter();
    let first = bench.ok(said.next().unwrap());
    said.for_each(|other| assert_eq!(bench.ok(other), ""));
    first
}

/// Of the checkpoint that a run goes on from, as it says: the percent that rank 0 read.
fn percent_read(said: &str) -> u32 {
    let (_, read) = said.split_once("\"read ").unwrap();
    read.split_once(" %").unwrap().0.parse().unwrap()
}

fn assert_near(found: &[Value], expected: &[Value]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        for key in ["loss", "mtp_loss"] {
            let number = |step: &Value| step[key].as_f64().unwrap();
            let error = (number(found) / number(expected) - 1.0).abs();
            assert!(error < 1e-5, "{key} of {found} for {expected}: {error:e}");
        }
        assert_eq!(found["tokens"], expected["tokens"]);
        assert_eq!(found["expert_load"], expected["expert_load"]);
    }
    let heldout = |steps: &[Value]| steps[steps.len() - 1]["heldout"]["loss"].as_f64().unwrap();
    let error = (heldout(found) / heldout(expected) - 1.0).abs();
    assert!(error < 1e-5, "held out: {error:e}");
}

const STEPS: &str = "steps=20";

#[test]
fn two_processes_learn_as_one_and_another_number_goes_on() {
    let bench = Bench::new();
    let alone = steps(&bench.ok(bench.run(&[STEPS], &[])));
    let plans: [(&str, &[&str]); 3] = [
        ("copies", &[STEPS, "parallel.zero1=false"]),
        ("parts", &[STEPS, "data.batch=2", "data.accumulate=2"]),
        ("experts", &[STEPS, "parallel.expert_ranks=2"]),
    ];
    for (name, sets) in plans {
        let found = together(&bench, 2, &bench.path(name), sets);
        assert_near(&steps(&found), &alone);
        let key = bench.path(name).join("checkpoints/.ranks-1.key");
        assert!(!key.exists(), "a secret that nobody needs any more");
    }
    // Of step 10, that ranks wrote and one goes on from, and the other way round.
    // A rank reads what it keeps: one of two all weights and half of both moments, and of those that one rank wrote the
    // tensor that lies on the border.
    let go_on: [(&str, usize, &[&str], std::ops::RangeInclusive<u32>); 4] = [
        ("experts", 1, &[STEPS], 100..=100),
        ("out", 2, &[STEPS], 66..=75),
        ("parts", 2, &[STEPS], 66..=68),
        ("copies", 2, &[STEPS, "parallel.expert_ranks=2"], 50..=66),
    ];
    for (name, world, sets, percent) in go_on {
        let out = bench.path(name);
        fs::remove_dir_all(out.join("checkpoints/step-00000020")).unwrap();
        let said = together(&bench, world, &out, sets);
        assert_near(&steps(&said), &alone[10..]);
        let read = percent_read(&said);
        assert!(percent.contains(&read), "{name}: {read} % were read");
    }
}

fn wait_for(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The steps that are on disk so far.
fn kept(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
    // The last line may be half a line.
    steps(text.rfind('\n').map_or("", |end| &text[..end]))
}

fn signal(rank: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &rank.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn ranks_that_made_room_go_on_to_the_bit() {
    let bench = Bench::new();
    let sets = ["steps=100000", "checkpoint.every=0", "parallel.expert_ranks=2"];
    let run = |out: &Path, least: usize, ask: &dyn Fn(&[Child])| {
        let ranks = start(&bench, 2, out, |_| sets.to_vec());
        wait_for(|| kept(out).len() >= least);
        ask(&ranks);
        ends(ranks)
    };
    let out = bench.path("out");
    // Whichever rank is asked asks all.
    for said in run(&out, 4, &|ranks| signal(&ranks[1], "-TERM")) {
        assert_eq!(said.status.code(), Some(128 + 15), "{said:?}");
    }
    assert!(!out.join("acknowledged").exists(), "the scheduler asked nothing");
    let ask = |_: &[Child]| fs::write(out.join("suspend"), "").unwrap();
    for said in run(&out, kept(&out).len() + 4, &ask) {
        bench.ok(said);
    }
    assert!(out.join("acknowledged").exists());
    let found = history(&kept(&out));
    assert!(found.len() >= 8);
    let reference = bench.path("reference");
    run(&reference, found.len(), &|ranks| signal(&ranks[0], "-INT"));
    assert_eq!(history(&kept(&reference))[..found.len()], found);
}

#[test]
fn encryption_changes_no_number() {
    let bench = Bench::new();
    // Not the address that rank 1 calls from: what it sends goes over the network, as to another host.
    let master = "127.0.0.2";
    let [clear, encrypted] = ["parallel.encrypt=false", "parallel.encrypt=true"].map(|set| {
        let sets = |_| vec!["steps=6", "parallel.expert_ranks=2", set];
        let ranks = start_at(master, &bench, 2, &bench.path(set), sets);
        history(&steps(&all_well(&bench, ranks)))
    });
    assert_eq!((clear.len(), &clear), (6, &encrypted));
}

#[test]
fn a_rank_that_is_killed_ends_all_and_is_named() {
    let bench = Bench::new();
    let out = bench.path("out");
    let mut ranks = start(&bench, 2, &out, |_| vec!["steps=100000", "checkpoint.every=0"]);
    wait_for(|| kept(&out).len() >= 2);
    let mut killed = ranks.pop().unwrap();
    let began = Instant::now();
    killed.kill().unwrap();
    killed.wait().unwrap();
    bench.refused(ends(ranks).remove(0), "rank 1 failed: its process is gone");
    assert!(began.elapsed() < Duration::from_secs(5), "after {:?}", began.elapsed());
}

#[test]
fn a_rank_that_dies_while_all_save_leaves_the_checkpoint_before() {
    let bench = Bench::new();
    let out = bench.path("out");
    let sets = ["steps=100000", "parallel.expert_ranks=2"];
    let checkpoints = out.join("checkpoints");
    let there = |prefix: &str| {
        let entries = fs::read_dir(&checkpoints).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(prefix)).max()
    };
    let mut ranks = start(&bench, 2, &out, |_| sets.to_vec());
    wait_for(|| there("step-").is_some());
    // From now on a save takes far longer than it is looked at here.
    fs::write(out.join("slot"), "100 0 100 2000").unwrap();
    wait_for(|| {
        let draft = there(".step-");
        thread::sleep(Duration::from_millis(300));
        draft.is_some_and(|draft| checkpoints.join(draft).join("part-0001-0000.bin").exists())
    });
    let mut killed = ranks.pop().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    bench.refused(ends(ranks).remove(0), "rank 1 failed: its process is gone");
    fs::remove_file(out.join("slot")).unwrap();
    let (saved, before) = (there("step-").unwrap(), history(&kept(&out)));
    let saved: usize = saved["step-".len()..].parse().unwrap();
    assert!(there(".step-").is_some() && before.len() > saved);
    let written = |rank: usize| {
        let files = fs::read_dir(checkpoints.join(format!("step-{saved:08}"))).unwrap();
        let files = files.map(Result::unwrap);
        let part = format!("part-{rank:04}-");
        let of_rank = files.filter(|file| file.file_name().to_str().unwrap().starts_with(&part));
        of_rank.map(|file| file.metadata().unwrap().len()).sum::<u64>() as f64
    };
    let (first, second) = (written(0), written(1));
    assert!((first / second - 1.0).abs() < 0.2, "shares of {first} and {second} bytes");

    let ranks = start(&bench, 2, &out, |_| sets.to_vec());
    wait_for(|| history(&kept(&out)).len() > before.len());
    signal(&ranks[1], "-TERM");
    let said = ends(ranks).swap_remove(0);
    let again = history(&steps(&String::from_utf8(said.stdout).unwrap()));
    assert_eq!(again[0].0, saved as u64 + 1);
    assert_eq!(again[..before.len() - saved], before[saved..], "to the bit");
    assert_eq!(there(".step-"), None, "the next save clears away what the last one left");
}

#[test]
fn ranks_that_cannot_begin_together_all_say_why() {
    let bench = Bench::new();
    let out = bench.path("out");
    let refused = |sets: &dyn Fn(usize) -> Vec<String>, expected: &str| {
        ends(start(&bench, 2, &out, sets))
            .into_iter()
            .for_each(|said| bench.refused(said, expected));
    };
    let batch = |_| vec!["data.batch=3".to_owned()];
    refused(&batch, "data.batch is 3, expected a multiple of the 2 ranks");
    let experts = |_| vec!["parallel.expert_ranks=3".to_owned()];
    refused(&experts, "4 routed experts cannot be divided over 3 ranks");
    let rates = |rank| vec![format!("optimizer.learning_rate=0.{}", rank + 1)];
    refused(&rates, "rank 1 has another configuration than rank 0");
    bench.ok(bench.run(&["steps=1"], &[]));
    let checkpoints = |rank| {
        let folder = bench.path(["out/checkpoints", "nowhere"][rank]);
        vec![format!("checkpoint.folder={}", folder.display())]
    };
    refused(&checkpoints, "rank 1 goes on from step 0, expected 1 as rank 0 does");
}
