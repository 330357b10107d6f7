//! Jobs on this machine, by the command that people type.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use tempfile::TempDir;

fn job(arguments: &[&str]) -> Command {
    let mut command = Command::new(ff2_cluster_tests::built("ff2ctl").unwrap());
    command.args(["job", "run", "--local"]).args(arguments);
    command
}

fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/train.py");
    path.display().to_string()
}

fn done(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.split_once("rank 0 is done: "));
    line.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr))).1.into()
}

/// The script of docs/JOBS.md comes to the same end, suspended or not.
#[test]
fn the_example_goes_on_where_it_was_suspended() {
    let script = example();
    let whole = job(&["--", "python3", &script]).output().unwrap();
    assert!(whole.status.success());
    let parts = job(&["--ranks", "2", "--suspend-after", "0.8", "--suspends", "2"])
        .args(["--", "python3", &script])
        .output()
        .unwrap();
    assert!(parts.status.success());
    assert_eq!(done(&whole), done(&parts));
    let told = String::from_utf8_lossy(&parts.stderr);
    assert_eq!(told.matches("that all is saved").count(), 2, "{told}");
    let text = String::from_utf8_lossy(&parts.stdout);
    assert!(text.contains("[0] rank 0 starts at step 0, attempt 1"), "{text}");
    assert!(text.contains("attempt 3") && !text.contains("step 0, attempt 2"), "{text}");
}

#[test]
fn a_job_says_how_it_went_and_keeps_what_it_should() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("job").display().to_string();
    let script = "echo hello; echo -n half > $FF2_STATE; while [ ! -e $FF2_SUSPEND ]; do sleep 0.05; \
                  [ $FF2_ATTEMPT = 2 ] && exit 4; done; exit 0";
    let output = job(&["--json", "--suspend-after", "0.3", "--folder", &folder])
        .args(["--", "bash", "-c", script])
        .output()
        .unwrap();
    assert!(!output.status.success(), "attempt 2 fails");
    assert!(String::from_utf8_lossy(&output.stderr).contains("rank 0 ended with 4"));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["state"], "half");
    assert_eq!(told["attempts"][0]["end"]["how"], "ended");
    assert_eq!(told["attempts"][1]["end"]["outcome"], "failed");
    let log = std::fs::read_to_string(dir.path().join("job/logs/rank-0.log")).unwrap();
    assert_eq!(log, "hello\nhello\n");
}

#[test]
fn mistakes_are_told_with_the_way_out() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("train.sh"), "true").unwrap();
    let said = |arguments: &[&str]| {
        let output = job(arguments).current_dir(dir.path()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&["--", "./train.sh"]).contains("chmod +x"));
    assert!(said(&["--", "train.sh"]).contains("./train.sh"));
    assert!(said(&["--", "no-such-program"]).contains("no-such-program"));
    assert!(said(&["--grace", "1", "--", "true"]).contains("5 to 300"));
    assert!(said(&["--signal", "KILL", "--", "true"]).contains("USR1"));
    assert!(said(&["--ranks", "0", "--", "true"]).contains("from 1"));
}

#[test]
fn an_interrupted_job_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let ready = dir.path().join("ready");
    let script = format!("(setsid sleep 1000 &); touch {}; sleep 1000", ready.display());
    let mut running = job(&["--", "bash", "-c", &script]).spawn().unwrap();
    let began = Instant::now();
    while !ready.exists() {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(!running.wait().unwrap().success());
    let mark = format!("touch {}", ready.display());
    let left = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&mark)
    });
    assert_eq!(left.count(), 0);
}
