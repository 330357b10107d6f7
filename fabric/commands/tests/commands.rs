//! The commands as users type them.
#![allow(clippy::unwrap_used, reason = "tests")]

use clap::Parser;
use ff2_fabric_commands::{Answer, FabricCommand};

#[derive(Debug, Parser)]
struct Fabric {
    #[command(subcommand)]
    command: FabricCommand,
}

fn try_run(line: &str) -> anyhow::Result<Answer> {
    let words = std::iter::once("fabric").chain(line.split_whitespace());
    Fabric::try_parse_from(words).unwrap().command.run()
}

fn run(line: &str) -> Answer {
    try_run(line).unwrap()
}

const SMALL: &str = "generate --zones 2 --leaf 4 --spine 2 --ports 8 --storage 3";

/// The small network in a file.
fn small() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.json");
    std::fs::write(&path, run(SMALL).value.to_string()).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

#[test]
fn the_tree_of_fire_flyer_2_is_generated() {
    let answer = run("generate --zones 2 --leaf 40 --spine 20");
    let count = |what: &str| answer.value[what].as_array().unwrap().len();
    assert_eq!((count("switches"), count("hosts")), (122, 1_380));
    assert_eq!(count("links"), 2 * 800 + 2 * 20 + 2 * 780);
    assert!(answer.text.contains("zone z1: 800 host ports"), "{}", answer.text);
    let refused = try_run("generate --leaf 50").unwrap_err().to_string();
    assert!(refused.contains("a spine needs 50 ports and has 40"), "{refused}");
}

#[test]
fn every_format_is_written_and_read_again() {
    let (folder, net) = small();
    for (format, key, count) in [
        ("ibnetdiscover", "hosts", 2 * 9 + 3),
        ("slurm-conf", "nodes", 2 * 9),
        ("slurm-yaml", "nodes", 2 * 9),
        ("lingjun", "nodes", 2 * 9 + 3),
        ("leaves", "nodes", 2 * 9 + 3),
        ("json", "hosts", 2 * 9 + 3),
    ] {
        let out = folder.path().join(format).display().to_string();
        run(&format!("export {net} --format {format} -o {out}"));
        let read = run(&format!("import {out} --format {format}"));
        assert_eq!(read.value[key].as_array().unwrap().len(), count, "{format}");
    }
    for (format, begins) in [("svg", "<svg"), ("dot", "graph")] {
        assert!(run(&format!("export {net} --format {format}")).text.starts_with(begins));
    }
}

#[test]
fn faults_are_named_by_port() {
    let (_folder, net) = small();
    assert!(run(&format!("check {net}")).text.contains("no fault"));
    let mut network: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&net).unwrap()).unwrap();
    network["links"].as_array_mut().unwrap().remove(0);
    std::fs::write(&net, network.to_string()).unwrap();
    let told = try_run(&format!("check {net}")).unwrap_err().to_string();
    assert!(told.contains("free ports of z0-leaf00: [5]"), "{told}");
}

#[test]
fn a_failure_is_routed_round_and_simulated() {
    let (folder, net) = small();
    let healthy = run(&format!("route {net}"));
    assert_eq!(healthy.value["changes"], serde_json::json!([]));
    let broken = run(&format!("route {net} --fail-link z0-leaf00[5]"));
    assert!(!broken.value["changes"].as_array().unwrap().is_empty());
    let switch = run(&format!("route {net} --fail-switch z0-spine01"));
    for answer in [&healthy, &broken, &switch] {
        assert_eq!(answer.value["ways_lost"], 0);
        assert_eq!(answer.value["credit_loop"], false);
    }
    let total = |line: &str| {
        run(&format!("simulate {net} {line}")).value["total_gbyte_per_s"].as_f64().unwrap()
    };
    let plot = folder.path().join("use.svg").display().to_string();
    let shift = "--workload shift --by 4 --gbytes 1";
    assert!(total(&format!("{shift} --plot {plot} --fail-switch z0-spine01")) < total(shift));
    assert!(std::fs::read_to_string(plot).unwrap().contains("hsl("));
    for workload in ["permutation", "read", "write", "checkpoint", "ring", "tree", "hfreduce", "kv"]
    {
        assert!(total(&format!("--workload {workload}")) > 0.0, "{workload}");
    }
    let refused = try_run(&format!("route {net} --fail-link nobody[1]")).unwrap_err().to_string();
    assert!(refused.contains("no link ends at nobody[1]"), "{refused}");
}

#[test]
fn weights_protect_a_class() {
    let total = |weights: &str| {
        let answer = run(&format!("simulate --workload read --workload tree --weights {weights}"));
        answer.value["classes"]["collective"]["total_gbyte_per_s"].as_f64().unwrap()
    };
    assert!(total("1,4,1") > 1.1 * total("1,1,1"));
    let refused = try_run("simulate --weights 1,0,1").unwrap_err().to_string();
    assert_eq!(refused, "--weights are above 0");
}

#[test]
fn each_job_is_told_what_binds_it_and_what_a_failure_costs() {
    let (_folder, net) = small();
    let both = "--workload ring --workload read";
    let answer = run(&format!("simulate {net} {both} --fail-switch z0-spine01"));
    let jobs = answer.value["workloads"].as_array().unwrap();
    let names: Vec<&str> = jobs.iter().map(|job| job["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["ring", "read"]);
    for job in jobs {
        assert!(job["binds"].as_str().unwrap().contains(" > "), "{job}");
    }
    let total = |value: &serde_json::Value| value["total_gbyte_per_s"].as_f64().unwrap();
    assert!(total(&answer.value["healthy"]) > total(&answer.value), "{}", answer.text);
    let whole = run(&format!("simulate {net} {both}"));
    assert_eq!(total(&answer.value["healthy"]), total(&whole.value));
    assert!(whole.value["healthy"].is_null());
}

#[test]
fn hfreduce_is_bound_by_its_slowest_stage() {
    let told = |line: &str| {
        let answer = run(&format!("simulate --efficiency 1 --workload hfreduce {line}"));
        let reduce = answer.value["hfreduce"].clone();
        (reduce["gbyte_per_s"].as_f64().unwrap(), reduce["binds"].as_str().unwrap().to_owned())
    };
    let (plain, binds) = told("--clients 128");
    assert_eq!(binds, "root ports of the nodes");
    let (nvlink, binds) = told("--clients 128 --nvlink");
    assert!(binds.contains(" > ") && nvlink > plain, "{nvlink} GB/s, bound by {binds}");
    assert!(told("--clients 128 --nvlink --workload read --window 16").0 < nvlink);
}
