//! A cluster comes up, is used, restarts as a whole, and goes down without a trace.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, time::Duration};

use ff2_cluster_tests::Cluster;

/// A process that ended and whose parent has not looked yet (a zombie) does not run.
fn runs(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn data_outlives_a_restart_of_the_whole_cluster() {
    let cluster = Cluster::start().unwrap();
    let mount = cluster.mount();
    let body: Vec<u8> = (0..9_000_001_u32).map(|i| (i % 251) as u8).collect();
    fs::create_dir(mount.join("folder")).unwrap();
    fs::write(mount.join("folder/file"), &body).unwrap();
    fs::write(mount.join("empty"), b"").unwrap();

    let before = cluster.processes().unwrap();
    cluster.up().unwrap();
    let again = cluster.processes().unwrap();
    let pids =
        |list: &[serde_json::Value]| -> Vec<_> { list.iter().map(|p| p["pid"].clone()).collect() };
    assert_eq!(pids(&before), pids(&again), "a second `up` starts nothing");

    cluster.ctl(&["down"]).unwrap();
    for process in &before {
        let pid = process["pid"].as_u64().unwrap();
        assert!(!runs(pid), "{process} still runs");
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(mount.to_str().unwrap()), "still mounted");

    cluster.up().unwrap();
    assert!(fs::read(mount.join("folder/file")).unwrap() == body, "the file changed");
    assert_eq!(fs::read(mount.join("empty")).unwrap(), b"");
    cluster.wait_healthy(Duration::from_secs(60)).unwrap();
    let table = cluster.ctl(&["status"]).unwrap();
    assert!(table.contains("healthy"), "{table}");
}
