use std::{net::SocketAddr, path::Path, process::Command, thread};

use super::*;
use crate::{Bound, Depth, Limits, Peer, pair::Server};

/// Little to do, and as much time as a busy machine may need.
fn budget() -> Budget {
    Budget {
        total: Duration::from_secs(600),
        slack: Duration::from_secs(60),
        cpu: Duration::from_millis(50),
        triad: Duration::from_millis(50),
        pattern: Duration::from_millis(150),
        pattern_bytes: 256 << 20,
        disk: Duration::from_millis(100),
        disk_bytes: 16 << 20,
        network: Duration::from_millis(100),
        ..Budget::of(Depth::Quick)
    }
}

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
fn all_parts_are_tried() {
    let folder = tempfile::tempdir().unwrap();
    let token = b"of this pair and this time";
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), token).unwrap();
    let address = server.address().unwrap();
    let serving = thread::spawn(move || server.serve(Duration::from_secs(600)).unwrap());
    let plan = Plan {
        disk: Some(folder.path().into()),
        file_system: Some(folder.path().into()),
        peer: Some(Peer { address, token: token.to_vec() }),
        nvml: Some("/nowhere.so".into()),
        limits: GENEROUS,
        ..Plan::default()
    };
    let report = validate_within(&plan, budget());
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
    let report = validate_within(&plan, budget());
    assert_eq!(report.verdict, Verdict::Failed);
    let reasons = report.reasons().join("\n");
    for part in [
        "GPU 2 does not answer",
        "GPU 1's uncorrected memory errors: 5",
        "GPU 1's link has 8 of 16 lanes",
    ] {
        assert!(reasons.contains(part), "{part} is not in {reasons}");
    }
    assert!(!reasons.contains("GPU 0"), "{reasons}");
}

#[test]
fn what_has_no_time_left_is_not_tried() {
    let report = validate_within(&Plan::default(), Budget { total: Duration::ZERO, ..budget() });
    assert_eq!((report.verdict, report.checks.len()), (Verdict::NotTried, 7));
    assert!(report.checks[0].why.contains("no time was left for cpu"), "{report:?}");
}
