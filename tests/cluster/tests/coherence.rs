//! What three mounts see of each other while servers die and a mount stands still: one history.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, history::workload};
use rustix::process::{Pid, Signal, kill_process};

/// Between the faults.
const CALM: Duration = Duration::from_secs(3);
/// For how long a mount stands still: shorter than a cache lease, and then longer.
const STANDSTILLS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(7)];

#[test]
fn three_mounts_see_one_history() {
    let cluster = Cluster::start().unwrap();
    let mounts = [
        cluster.mount(),
        cluster.mount_beside("two").unwrap(),
        cluster.mount_beside("three").unwrap(),
    ];
    let folders = mounts.each_ref().map(|mount| mount.join("history"));
    fs::create_dir(&folders[0]).unwrap();
    let is_over = AtomicBool::new(false);
    let stopped = pid_of(&cluster, &mounts[2]);
    let histories = thread::scope(|scope| {
        let clients = scope.spawn(|| workload::run(&folders, &is_over));
        thread::sleep(CALM);
        let leader = cluster.leader(1).unwrap();
        cluster.ctl(&["kill", &leader]).unwrap();
        thread::sleep(CALM);
        // No program is started meanwhile: a child has our open files, and waits for the mount with them.
        for standstill in STANDSTILLS {
            kill_process(stopped, Signal::STOP).unwrap();
            thread::sleep(standstill);
            kill_process(stopped, Signal::CONT).unwrap();
            thread::sleep(CALM / 2);
        }
        cluster.ctl(&["kill", "storaged/0"]).unwrap();
        thread::sleep(CALM);
        is_over.store(true, Ordering::Relaxed);
        clients.join().unwrap().unwrap()
    });
    eprintln!("{} operations", histories.count());
    assert!(histories.count() > 1_000, "the mounts did something");
    histories.check().unwrap_or_else(|why| panic!("{why}"));
    cluster.up().unwrap();
    // Folders with the same names on all of them, once all is quiet.
    let listed = folders.each_ref().map(|folder| names(folder));
    assert!(listed[0] == listed[1] && listed[1] == listed[2], "{listed:?}");
}

/// Changes of others wait for a mount that died with what it cached, once and not for ever.
#[test]
fn a_dead_mount_is_not_waited_for_twice() {
    let cluster = Cluster::start().unwrap();
    let other = cluster.mount_beside("other").unwrap();
    let (here, there) = (cluster.mount().join("f"), other.join("f"));
    fs::write(&here, "one").unwrap();
    assert_eq!(fs::read(&there).unwrap(), b"one");
    let victim = cluster.process_of_mount(&other).unwrap();
    cluster.ctl(&["kill", &victim]).unwrap();
    fs::write(&here, "two").unwrap();
    let begun = Instant::now();
    for round in 0..20 {
        fs::write(&here, format!("round {round}")).unwrap();
    }
    // Twenty leases would be a hundred seconds.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

fn pid_of(cluster: &Cluster, mount: &Path) -> Pid {
    let name = cluster.process_of_mount(mount).unwrap();
    let index: u64 = name.strip_prefix("fuse/").unwrap().parse().unwrap();
    let processes = cluster.processes().unwrap();
    let process = processes
        .iter()
        .find(|process| process["role"] == "fuse" && process["index"] == index)
        .unwrap();
    Pid::from_raw(process["pid"].as_i64().unwrap() as i32).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}
