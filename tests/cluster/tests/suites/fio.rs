//! fio: blocks with checksums, written in many ways and verified, then once more on a new mount.

use std::{path::Path, process::Command};

use ff2_cluster_tests::{
    Cluster,
    suite::{SMALL, program, rounds, run},
};

/// Name, pattern, engine, block size, size in MiB, whether direct.
const JOBS: [(&str, &str, &str, &str, u64, bool); 9] = [
    ("stream", "write", "psync", "128k", 48, false),
    ("random", "randwrite", "psync", "4k", 2, false),
    ("odd", "randwrite", "psync", "3000-17001", 6, false),
    ("direct-stream", "write", "libaio", "1m", 48, true),
    ("direct-random", "randwrite", "libaio", "16k", 8, true),
    ("uring", "randwrite", "io_uring", "32k", 16, true),
    ("mapped", "write", "mmap", "64k", 24, false),
    ("mapped-random", "randwrite", "mmap", "4k", 2, false),
    ("mixed", "randrw", "psync", "4k-64k", 8, false),
];

#[test]
fn blocks_are_what_was_written_also_on_a_new_mount() {
    let Some(fio) = program("fio") else { return };
    let cluster = Cluster::start_with(&SMALL).unwrap();
    let mount = cluster.mount();
    for job in JOBS {
        run(command(&fio, &mount, job).args(["--do_verify=1"])).unwrap();
    }
    cluster.remount().unwrap();
    // Where reads are mixed in fio does not know afterwards what was written.
    for job in JOBS.into_iter().filter(|job| job.1 != "randrw") {
        run(command(&fio, &mount, job).arg("--verify_only=1")).unwrap();
    }
}

fn command(
    fio: &Path,
    mount: &Path,
    (name, pattern, engine, block, size, direct): (&str, &str, &str, &str, u64, bool),
) -> Command {
    let mut command = Command::new(fio);
    command.arg(format!("--name={name}")).arg(format!("--rw={pattern}"));
    command.arg(format!("--ioengine={engine}")).arg(format!("--bs={block}"));
    command
        .arg(format!("--size={}m", size * rounds()))
        .arg(format!("--direct={}", u8::from(direct)));
    command.arg(format!("--directory={}", mount.display()));
    command.args([
        "--iodepth=8",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--output-format=terse",
    ]);
    if block.contains('-') {
        command.arg("--bs_unaligned");
    }
    command
}
