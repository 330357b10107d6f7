//! dbench: the file server load of NetBench by four clients, who compare the outcome of each call with
//! what was recorded.

use std::{fs, process::Command};

use ff2_cluster_tests::{
    Cluster,
    suite::{SMALL, ensure_same_tree, inodes, program, rounds, run, wait_collected},
};

const SECONDS: u64 = 10;

#[test]
fn four_clients_leave_one_tree() {
    let Some(dbench) = program("dbench") else { return };
    let cluster = Cluster::start_with(&SMALL).unwrap();
    let (here, there) = (cluster.mount(), cluster.mount_beside("beside").unwrap());
    let before = inodes(&here).unwrap();
    fs::create_dir(here.join("d")).unwrap();
    let mut command = Command::new(dbench);
    command.arg("-t").arg((SECONDS * rounds()).to_string()).arg("--skip-cleanup");
    // Debian has the load beside the program.
    command.args(["-c", "/usr/share/dbench/client.txt", "-D"]).arg(here.join("d")).arg("4");
    let text = run(&mut command).unwrap();
    assert!(text.contains("4 clients") && !text.contains("ERROR"), "{text}");
    ensure_same_tree(&here, &there).unwrap();
    fs::remove_dir_all(there.join("d")).unwrap();
    assert_eq!(fs::read_dir(&here).unwrap().count(), 0);
    wait_collected(&here, before).unwrap();
    assert_eq!(cluster.fsck().unwrap(), 0, "what is left of files that are gone");
}
