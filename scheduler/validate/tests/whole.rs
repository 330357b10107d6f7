//! A quick validation of this machine, as a daemon asks for it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ff2_validate::{Bound, Limits, Peer, Plan, Report, Verdict, limits, pair::Server, validate};

/// This machine may be slow and busy: only what is wrong on any machine counts.
const GENEROUS: Limits = {
    let any = Bound { suspect: 0.0, failed: 0.0 };
    Limits {
        of_peers: any,
        slowest_core: any,
        memory_mib_s: any,
        disk_mib_s: any,
        file_system_mib_s: any,
        network_mib_s: any,
        network_us: Bound { suspect: 1e9, failed: 1e9 },
        gpu_celsius: Bound { suspect: 80.0, failed: 90.0 },
        gpu_retired_pages: Bound { suspect: 30.0, failed: 60.0 },
        gpu_pcie: Bound { suspect: 1.0, failed: 0.75 },
    }
};

#[test]
fn all_parts_are_tried_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let token = b"of this pair and this time";
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), token).unwrap();
    let address = server.address().unwrap();
    let serving = thread::spawn(move || server.serve(Duration::from_secs(60)).unwrap());
    let plan = Plan {
        disk: Some(folder.path().into()),
        file_system: Some(folder.path().into()),
        peer: Some(Peer { address, token: token.to_vec() }),
        nvml: Some("/nowhere.so".into()),
        limits: GENEROUS,
        ..Plan::default()
    };
    let begun = Instant::now();
    let report = validate(&plan);
    assert!(begun.elapsed() < limits::QUICK_MAX + Duration::from_secs(1), "{report:?}");
    let verdict = |name: &str| {
        let named = report.checks.iter().find(|check| check.name == name);
        named.unwrap_or_else(|| panic!("{name} is not in {report:#?}")).verdict
    };
    for name in [
        "cpu.wrong_cores",
        "cpu.slowest_core",
        "cpu.rate",
        "memory.bandwidth",
        "memory.wrong_words",
        "disk.write",
        "disk.read",
        "disk.wrong_pages",
        "fs.wrong_pages",
        "network.latency",
        "network.send",
        "network.receive",
        "network.wrong_chunks",
    ] {
        assert_eq!(verdict(name), Verdict::Ok, "{name}: {report:#?}");
    }
    assert_eq!(verdict("gpu"), Verdict::NotTried);
    assert_eq!(report.verdict, Verdict::Ok);
    assert!(report.reasons().is_empty());
    assert!(serving.join().unwrap().is_done);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

/// With a stand-in for the driver's library, which has a lost GPU and a broken one.
#[test]
fn a_node_with_broken_gpus_fails_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libnvidia-ml.so.1");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/tests/nvml.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(built.unwrap().success());
    let plan = Plan { nvml: Some(library), limits: GENEROUS, ..Plan::default() };
    let report = validate(&plan);
    assert_eq!(report.verdict, Verdict::Failed);
    let reasons = report.reasons().join("\n");
    for part in
        ["GPU 2 does not answer", "memory errors of GPU 1: 5", "GPU 1's link has 8 of 16 lanes"]
    {
        assert!(reasons.contains(part), "{part} is not in {reasons}");
    }
    assert!(!reasons.contains("GPU 0"), "{reasons}");
}
