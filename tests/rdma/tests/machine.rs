//! What whoever runs something in the machine relies on.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{path::Path, time::Duration};

use ff2_vm::{Job, missing, run};

/// `None`: no machine can be made here, and the tests may be left out.
fn shell<'a>(arguments: &'a [&'a str]) -> Option<Job<'a>> {
    let missing = missing();
    if missing.is_empty() {
        return Some(Job { arguments, ..Job::new(Path::new("/bin/sh")) });
    }
    let value = std::env::var("FF2_TEST_ALLOW_SKIP").unwrap_or_default();
    let allowed = value.split(',').any(|word| ["1", "qemu"].contains(&word));
    assert!(allowed, "{missing:?} are missing; FF2_TEST_ALLOW_SKIP=qemu leaves the machine out");
    eprintln!("SKIPPED: no machine can be made without {missing:?}");
    None
}

#[test]
fn a_program_has_the_devices_and_its_exit_status_comes_back() {
    let script = "echo to stdout; echo to stderr >&2; cat /sys/class/infiniband/zebra*/ports/1/state; \
        cat /sys/fs/cgroup/cgroup.controllers; echo \"$WORD\"; exit 7";
    let arguments = ["-c", script];
    let Some(job) = shell(&arguments) else { return };
    let ended = run(&Job { environment: &[("WORD", "$PATH")], ..job }).unwrap();
    assert_eq!(ended.status, 7, "{ended:?}");
    let lines: Vec<_> = ended.output.lines().collect();
    assert_eq!(lines[..4], ["to stdout", "to stderr", "4: ACTIVE", "4: ACTIVE"], "{ended:?}");
    assert!(lines[4].contains("memory"), "{ended:?}");
    assert_eq!(lines[5], "$PATH", "{ended:?}");
}

#[test]
fn a_machine_is_ended_with_its_time() {
    let Some(job) = shell(&["-c", "exec sleep 1000"]) else { return };
    let error = run(&Job { time_max: Duration::from_secs(2), ..job }).unwrap_err().to_string();
    assert!(error.contains("at its limit of 2 s"), "{error}");
}
