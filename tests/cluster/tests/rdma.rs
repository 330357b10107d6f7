//! A whole cluster whose processes reach each other by RDMA. Where there is no device this is tried in a virtual
//! machine alone, and left out here if `FF2_TEST_ALLOW_SKIP` is 1 or names `rdma`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use ff2_cluster_tests::{Cluster, load::Load, may_skip, target_folder};
use ff2_vm::{Disk, rerun_tests_in};

#[rustfmt::skip]
const SHAPE: [&str; 12] = [
    "--metad", "1", "--storaged", "3", "--disks", "1", "--replicas", "2", "--disk-size", "1GiB",
    "--transport", "rdma",
];
/// More than what travels beside the bytes of files.
const FILE_BYTES: usize = 16 << 20;
/// An emulated processor is slow, and so is all that has to happen.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn a_cluster_over_rdma_misses_no_server_and_no_byte() {
    let devices = fs::read_dir("/sys/class/infiniband").is_ok_and(|all| all.count() > 0);
    let missing = "rdma devices are not here";
    if !devices && may_skip(missing) {
        return;
    }
    assert!(devices, "{missing}; FF2_TEST_ALLOW_SKIP=rdma leaves this out");

    let cluster = Cluster::start_with(&SHAPE).unwrap();
    let body: Vec<u8> = (0..FILE_BYTES).map(|at| (at / 4096 + at * 7) as u8).collect();
    let file = cluster.mount().join("file");
    fs::write(&file, &body).unwrap();
    fs::File::open(&file).unwrap().sync_all().unwrap();
    cluster.remount().unwrap();
    assert!(fs::read(&file).unwrap() == body, "other bytes were read");
    let moved = Moved::of(&cluster);

    let load = Load::start(&cluster.mount().join("load"), 2).unwrap();
    thread::sleep(Duration::from_secs(2));
    cluster.ctl(&["kill", "storaged/0"]).unwrap();
    // Its chains go on without it meanwhile.
    thread::sleep(Duration::from_secs(6));
    cluster.up().unwrap();
    cluster.wait_healthy(PATIENCE).unwrap();
    cluster.ensure_kept(load, PATIENCE).unwrap();
    assert!(fs::read(&file).unwrap() == body, "other bytes were read after a server died");
    cluster.fsck().unwrap();

    // Each byte was written to two replicas, and read once: on a server's side alone.
    println!("by RDMA {} bytes, otherwise {} bytes", moved.by_rdma, moved.otherwise);
    assert!(moved.by_rdma >= 3 * FILE_BYTES as u64, "{moved:?}");
    assert!(moved.otherwise < FILE_BYTES as u64 / 16, "{moved:?}");
    // It counts from its start on, and has caught up since.
    let back = Moved::by(&cluster, "storaged/0");
    assert!(back.by_rdma > 0, "{back:?}");
    // Connections to metads are encrypted, and the network is trusted: `ff2ctl up` says so for a cluster of one host.
    let names = Moved::by(&cluster, "metad/0");
    assert!(names.by_rdma > 0, "{names:?}");
}

/// Bytes of servers' sides of all connections.
#[derive(Debug)]
struct Moved {
    by_rdma: u64,
    otherwise: u64,
}

impl Moved {
    /// Of the storage servers.
    fn of(cluster: &Cluster) -> Self {
        let mut all = Self { by_rdma: 0, otherwise: 0 };
        for index in 0..3 {
            let moved = Self::by(cluster, &format!("storaged/{index}"));
            all.by_rdma += moved.by_rdma;
            all.otherwise += moved.otherwise;
        }
        all
    }

    fn by(cluster: &Cluster, name: &str) -> Self {
        let metrics = cluster.ctl(&["admin", "metrics", name]).unwrap();
        let mut moved = Self { by_rdma: 0, otherwise: 0 };
        let bytes = |line: &&str| line.contains("_fabric_bytes_") && line.contains("\"server\"");
        for line in metrics.lines().filter(bytes) {
            let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            match line.contains("transport=\"rdma\"") {
                true => moved.by_rdma += count,
                false => moved.otherwise += count,
            }
        }
        moved
    }
}

/// Whatever the host has.
#[test]
fn all_of_this_holds_in_a_virtual_machine() {
    let target = target_folder().unwrap();
    let programs = ["ff2ctl", "ff2-metad", "ff2-storaged", "ff2-fuse", "ff2-load"];
    let mut files: Vec<(PathBuf, String)> = programs
        .map(|name| (target.join("debug").join(name), format!("/work/target/debug/{name}")))
        .into();
    files.push((Path::new("/usr/bin/fusermount3").into(), "/usr/bin/fusermount3".into()));
    rerun_tests_in("all_of_this_holds_in_a_virtual_machine", |job| ff2_vm::Job {
        place: "/work/target/debug/deps/rdma",
        files: &files,
        disk: Some(Disk { mib: 8192, mount_point: "/work/target/tmp" }),
        memory_mib: 2560,
        ..job
    });
}
