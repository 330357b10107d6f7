//! A disk whose bytes changed behind everybody's back.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use ff2_cluster_tests::Cluster;

/// Behind the superblock.
const FIRST: u64 = 64 << 10;
const STEP: usize = 4 << 10;

#[test]
fn a_damaged_replica_is_read_around() {
    let cluster = Cluster::start().unwrap();
    let body: Vec<u8> = (0..48_usize << 20).map(|at| (at / 4096 + at * 7) as u8).collect();
    fs::write(cluster.mount().join("file"), &body).unwrap();
    let mut changed = 0;
    for data in data_files(&cluster.dir().join("storaged-0")) {
        changed += damage(&data);
    }
    assert!(changed > 100, "only {changed} places of the disk are in use");
    // Several mounts, none of which has the bytes in memory or knows of a bad replica.
    for _ in 0..3 {
        cluster.remount().unwrap();
        assert!(fs::read(cluster.mount().join("file")).unwrap() == body, "changed bytes were read");
    }
    let metrics = cluster.ctl(&["admin", "metrics", "storaged/0"]).unwrap();
    let failures = metrics
        .lines()
        .find_map(|line| line.strip_prefix("ff2_storaged_op_failures_total{op=\"read\"} "));
    assert!(failures.is_some(), "nobody read the damaged replica: {metrics}");
}

fn data_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().join("data"));
    entries.filter(|path| path.is_file()).collect()
}

/// Changes a byte of each sector that has content; returns how many.
fn damage(path: &Path) -> usize {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut changed = 0;
    let mut sector = vec![0; STEP];
    for at in (FIRST..file.metadata().unwrap().len()).step_by(STEP) {
        file.read_exact_at(&mut sector, at).unwrap();
        if sector.iter().any(|byte| *byte != 0) {
            file.write_all_at(&[sector[100] ^ 0x20], at + 100).unwrap();
            changed += 1;
        }
    }
    file.sync_all().unwrap();
    changed
}

#[test]
fn a_scrub_finds_damage_and_has_it_repaired() {
    let cluster = Cluster::start().unwrap();
    let body: Vec<u8> = (0..24_usize << 20).map(|at| (at / 4096 + at * 5) as u8).collect();
    fs::write(cluster.mount().join("file"), &body).unwrap();
    cluster.ctl(&["scrub", "start", "--wait"]).unwrap();
    let disks = data_files(&cluster.dir().join("storaged-0"));
    let changed: usize = disks.iter().map(|data| damage(data)).sum();
    assert!(changed > 0, "the disk is not in use");
    let found = cluster.ctl(&["scrub", "start", "--wait"]).unwrap_err();
    assert!(format!("{found:#}").contains("damaged chunks"), "{found:#}");
    cluster.wait_healthy(Duration::from_secs(60)).unwrap();
    // Nothing of what it found is left.
    cluster.ctl(&["scrub", "start", "--wait"]).unwrap();
    cluster.remount().unwrap();
    assert!(fs::read(cluster.mount().join("file")).unwrap() == body);
}
