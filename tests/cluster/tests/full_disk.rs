//! Disks that fill up: the writer hears it, everybody can go on reading, and what is deleted is space
//! again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::Cluster;

/// One chain of three small disks.
#[rustfmt::skip]
const SMALL: [&str; 10] = [
    "--metad", "1", "--storaged", "3", "--disks", "1", "--replicas", "3", "--disk-size", "256MiB",
];
const FILE_BYTES: usize = 8 << 20;
/// More files than the disks could ever hold.
const FILES_MAX: usize = 64;
/// Removed files are collected in rounds, and their blocks are free after a sync.
const COLLECTED: Duration = Duration::from_secs(60);

fn body(number: usize) -> Vec<u8> {
    (0..FILE_BYTES).map(|at| (at / 4096 * 31 + at + number * 7) as u8).collect()
}

fn path(root: &Path, number: usize) -> std::path::PathBuf {
    root.join(format!("file-{number:03}"))
}

/// Writes whole files until one is refused; returns how many are complete.
fn fill(root: &Path) -> usize {
    for number in 0..FILES_MAX {
        let write = || -> std::io::Result<()> {
            let mut file = File::create(path(root, number))?;
            file.write_all(&body(number))?;
            file.sync_all()
        };
        if let Err(error) = write() {
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
            assert_eq!(error.raw_os_error(), Some(28), "ENOSPC");
            return number;
        }
    }
    panic!("{FILES_MAX} files of {FILE_BYTES} bytes fit on 256 MiB");
}

#[test]
fn a_full_cluster_refuses_writes_and_serves_everything_else() {
    let cluster = Cluster::start_with(&SMALL).unwrap();
    let root = cluster.mount();
    let complete = fill(&root);
    assert!(complete * FILE_BYTES >= 128 << 20, "only {complete} files fit");
    // From the servers, not from this mount's memory.
    cluster.remount().unwrap();
    for number in 0..complete {
        assert!(fs::read(path(&root, number)).unwrap() == body(number), "file {number}");
    }
    // Names still work, and a file can be cut.
    fs::create_dir(root.join("dir")).unwrap();
    fs::rename(path(&root, 0), root.join("dir/moved")).unwrap();
    File::options().write(true).open(root.join("dir/moved")).unwrap().set_len(5_000).unwrap();
    assert!(fs::read(root.join("dir/moved")).unwrap() == body(0)[..5_000]);
    let status = cluster.json(&["status"]).unwrap();
    let problems = status["problems"].as_array().unwrap();
    let is_full = |problem: &serde_json::Value| problem.as_str().unwrap().contains("% full");
    assert!(!problems.is_empty() && problems.iter().all(is_full), "only full: {problems:?}");

    for number in 1..=complete {
        fs::remove_file(path(&root, number)).unwrap();
    }
    let begun = Instant::now();
    while again(&root).is_err() {
        assert!(begun.elapsed() < COLLECTED, "the space does not come back");
        thread::sleep(Duration::from_millis(500));
    }
    assert!(fs::read(root.join("again")).unwrap() == vec![1; 128 << 20]);
}

/// Half of a disk, at once.
fn again(root: &Path) -> std::io::Result<()> {
    let mut file = File::create(root.join("again"))?;
    file.write_all(&vec![1; 128 << 20])?;
    file.sync_all()
}
