//! Programs that start others while the servers are down.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use ff2_cluster_tests::Cluster;

/// Holds a file of the mount, too large for its close to go behind, then runs a program: the child closes the
/// file on its way into the program, with the kernel's lock on its execution held.
const PROGRAM: &str = "
import subprocess, sys
file = open(sys.argv[1], 'w')
file.write('kept' * 5000)
file.flush()
print('ready', flush=True)
sys.stdin.readline()
subprocess.run(['true'], close_fds=False)
print('done', flush=True)
";

/// The mount looks whether who waits was killed; the kernel answers that only after the exec, which waits
/// for the mount.
#[test]
fn a_program_that_starts_another_during_an_outage_does_not_stop_the_mount() {
    let cluster = Cluster::start().unwrap();
    let file = cluster.mount().join("held");
    let mut program = Command::new("python3")
        .args(["-c", PROGRAM])
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let (told, hears) = mpsc::channel();
    thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| told.send(line)));
    assert_eq!(hears.recv_timeout(Duration::from_secs(10)).unwrap(), "ready");

    for index in 0..3 {
        cluster.ctl(&["kill", &format!("metad/{index}")]).unwrap();
    }
    program.stdin.take().unwrap().write_all(b"go\n").unwrap();
    thread::sleep(Duration::from_secs(4));
    assert!(hears.try_recv().is_err(), "the close did not wait for the namespace");
    cluster.up().unwrap();
    let done = hears.recv_timeout(Duration::from_secs(30));
    assert_eq!(done.expect("the mount answers nobody any more"), "done");
    assert!(program.wait().unwrap().success());
    assert_eq!(fs::read(&file).unwrap(), b"kept".repeat(5000));
}
