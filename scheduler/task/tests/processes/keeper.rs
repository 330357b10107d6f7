//! A run that outlives whoever ordered it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ff2_task::{
    MakeRoom, Outcome, RunSpec, User,
    keeper::{Run, State, boot_ms},
    supervise::Suspension,
};
use tempfile::TempDir;

use super::spec;

/// This test program, as the keeper of a run.
fn keeper(run: &Run) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "keeper::keeps", "--nocapture"]).env("KEEP", run.folder());
    command
}

#[test]
fn keeps() {
    if let Some(folder) = std::env::var_os("KEEP") {
        // SAFETY: nextest runs each test in a process of its own, and no other thread looks at the environment.
        unsafe { std::env::remove_var("KEEP") };
        Run::at(folder).keep().unwrap();
    }
}

fn wait_for<T>(what: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "waited in vain");
        thread::sleep(Duration::from_millis(10));
    }
}

fn end_of(run: &Run) -> Outcome {
    wait_for(|| match run.state().unwrap() {
        State::Ended(outcome) => Some(outcome),
        _ => None,
    })
}

#[test]
fn a_run_takes_orders_from_whoever_finds_its_folder() {
    let dir = TempDir::new().unwrap();
    let script = "while [ ! -e $FF2_SUSPEND ]; do sleep 0.02; done; touch $FF2_ACK; sleep 1000";
    let run = Run::at(dir.path().join("run"));
    run.start(&spec(dir.path(), 2, script), &mut keeper(&run)).unwrap();
    assert_eq!(run.state().unwrap(), State::Running);
    assert!(run.start(&spec(dir.path(), 2, script), &mut keeper(&run)).is_err(), "once");
    // Somebody else, later.
    let found = Run::at(dir.path().join("run"));
    found.suspend(MakeRoom::within(Duration::from_secs(60))).unwrap();
    let Outcome::Suspended { how, .. } = end_of(&found) else { panic!() };
    assert_eq!(how, Suspension::Acknowledged);
    assert!(found.stop().is_err(), "it is over");
}

#[test]
fn a_run_that_cannot_begin_says_why() {
    let dir = TempDir::new().unwrap();
    let run = Run::at(dir.path().join("run"));
    let command = vec!["/no/such/program".into()];
    let spec = RunSpec { command, ..spec(dir.path(), 2, "") };
    run.start(&spec, &mut keeper(&run)).unwrap();
    let Outcome::NotStarted { why } = end_of(&run) else { panic!() };
    assert!(why.contains("/no/such/program"), "{why}");
    let other = Run::at(dir.path().join("other"));
    let error = other.start(&spec, Command::new("false").arg("x")).unwrap_err().to_string();
    assert!(error.contains("exit status: 1"), "{error}");
}

#[test]
fn what_a_lost_run_left_behind_is_swept_away() {
    let dir = TempDir::new().unwrap();
    let script = "(setsid sleep 1000 >/dev/null 2>&1 &); echo $$ > $FF2_STATE.$RANK; sleep 1000";
    let run = Run::at(dir.path().join("run"));
    run.start(&spec(dir.path(), 2, script), &mut keeper(&run)).unwrap();
    let pid = wait_for(|| {
        let text = fs::read_to_string(dir.path().join("job/state.0")).ok()?;
        text.trim().parse::<i32>().ok()
    });
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name: its state, whichever that is now, and its parent.
    let keeper: i32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
    let keeper = rustix::process::Pid::from_raw(keeper).unwrap();
    thread::sleep(Duration::from_millis(200));
    rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
    wait_for(|| (run.state().unwrap() == State::Lost).then_some(()));
    wait_for(|| (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    assert_eq!(run.sweep(), 2, "the ranks went with their keeper, their daemons did not");
    assert_eq!(run.sweep(), 0);
}

#[test]
fn a_run_that_nobody_renews_ends() {
    let dir = TempDir::new().unwrap();
    let run = Run::at(dir.path().join("run"));
    let began = boot_ms();
    let until_boot_ms = Some(began + 1_500);
    let spec = RunSpec { until_boot_ms, ..spec(dir.path(), 1, "trap '' TERM; sleep 1000") };
    run.start(&spec, &mut keeper(&run)).unwrap();
    run.renew(boot_ms() + 3_000).unwrap();
    thread::sleep(Duration::from_millis(2_000));
    assert_eq!(run.state().unwrap(), State::Running, "it was renewed");
    // An older answer takes nothing back.
    run.renew(boot_ms()).unwrap();
    assert_eq!(end_of(&run), Outcome::Expired);
    assert!(boot_ms() >= began + 2_500);
}

#[test]
fn a_job_that_is_a_users_writes_as_the_user() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run jobs of others");
        return;
    }
    let dir = TempDir::new().unwrap();
    let open = || std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(dir.path(), open()).unwrap();
    let script = "#!/bin/sh\nid -u; id -G; echo wrong >&2; touch $FF2_CHECKPOINT/made\n";
    let (uid, gid) = (4_242, 4_243);
    let job = dir.path().join("job");
    fs::create_dir(&job).unwrap();
    std::os::unix::fs::chown(&job, Some(uid), Some(gid)).unwrap();
    let spec = RunSpec {
        command: vec![job.join("script").to_string_lossy().into_owned()],
        script: Some(script.into()),
        user: Some(User { uid, gid }),
        checkpoint: job.join("checkpoint"),
        work_dir: "/".into(),
        output: Some(vec![job.join("out")]),
        errors: Some(vec![job.join("err")]),
        ..spec(dir.path(), 1, "")
    };
    let run = Run::at(dir.path().join("run"));
    run.start(&spec, &mut keeper(&run)).unwrap();
    assert_eq!(end_of(&run), Outcome::Finished);
    assert_eq!(fs::read_to_string(job.join("out")).unwrap(), format!("{uid}\n{gid}\n"));
    assert_eq!(fs::read_to_string(job.join("err")).unwrap(), "wrong\n");
    for file in ["out", "err", "script", "logs", "checkpoint/made"] {
        let is = fs::metadata(spec.folder.join(file)).unwrap();
        assert_eq!((is.uid(), is.gid()), (uid, gid), "{file}");
    }
}
