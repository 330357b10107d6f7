//! Real processes: what they find, how they make room, and that nothing is left of them.

use std::{
    fs, io,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ff2_task::{
    CheckpointSlot, Control, JobFolder, MakeRoom, Notice, Outcome, RunSpec, control, supervise,
    supervise::{Ending, Suspension},
};
use tempfile::TempDir;

use super::spec;

/// What descends from the process is the job's: one run at a time. Nextest gives each test a process of its own;
/// this is for those who do not use it.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Runs it, and lets `meanwhile` give orders.
fn run(spec: &RunSpec, meanwhile: impl FnOnce(&Control) + Send) -> io::Result<Outcome> {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (control, orders) = control();
    thread::scope(|scope| {
        scope.spawn(move || meanwhile(&control));
        supervise(spec, orders, None)
    })
}

fn wait_for(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(30), "waited in vain");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Processes whose environment names this folder.
fn of_job(dir: &Path) -> Vec<String> {
    let mark = format!("FF2_STATE={}", dir.join("job/state").display());
    let found = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    });
    found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn log(dir: &TempDir, rank: u32) -> String {
    fs::read_to_string(JobFolder::new(dir.path().join("job"), 1).log(rank)).unwrap()
}

#[test]
fn ranks_know_their_place_and_their_output_is_kept() {
    let dir = TempDir::new().unwrap();
    let spec = spec(dir.path(), 3, r#"echo "rank $RANK of $WORLD_SIZE in $PWD"; echo bad >&2"#);
    assert_eq!(run(&spec, |_| {}).unwrap(), Outcome::Finished);
    for rank in 0..3 {
        let text = log(&dir, rank);
        assert!(text.contains(&format!("rank {rank} of 3 in {}", dir.path().display())), "{text}");
        assert!(text.contains("bad"));
    }
}

#[test]
fn a_rank_that_fails_ends_the_others() {
    let dir = TempDir::new().unwrap();
    let script = "if [ $RANK = 1 ]; then sleep 0.2; exit 3; fi; sleep 1000";
    let began = Instant::now();
    let outcome = run(&spec(dir.path(), 3, script), |_| {}).unwrap();
    assert_eq!(outcome, Outcome::Failed { rank: 1, how: Ending::Code(3) });
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(of_job(dir.path()), [""; 0]);
}

#[test]
fn a_job_that_acknowledges_is_ended_at_once_and_finds_what_it_kept() {
    let dir = TempDir::new().unwrap();
    let script = r#"
        echo "attempt $FF2_ATTEMPT found '$(cat $FF2_STATE 2>/dev/null)'"
        if [ $FF2_ATTEMPT = 2 ]; then exit 0; fi
        while [ ! -e $FF2_SUSPEND ]; do sleep 0.02; done
        if [ $RANK = 0 ]; then echo -n "step 42" > $FF2_STATE; touch $FF2_ACK; fi
        sleep 1000
    "#;
    let mut spec = spec(dir.path(), 2, script);
    let suspended = run(&spec, |control| {
        thread::sleep(Duration::from_millis(300));
        control.suspend(MakeRoom::within(Duration::from_secs(60)));
    });
    let Outcome::Suspended { how, after_ms } = suspended.unwrap() else { panic!() };
    assert_eq!(how, Suspension::Acknowledged);
    assert!(after_ms < 10_000, "{after_ms}");
    assert_eq!(of_job(dir.path()), [""; 0]);
    spec.attempt = 2;
    assert_eq!(run(&spec, |_| {}).unwrap(), Outcome::Finished);
    assert!(log(&dir, 0).contains("attempt 2 found 'step 42'"));
}

/// The script of docs/JOBS.md, which would save every hundred steps without a slot.
#[test]
fn the_example_saves_in_its_slot_and_not_outside() {
    const HOUR_MS: u64 = 3_600_000;
    let dir = TempDir::new().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/train.py");
    let mut spec = spec(dir.path(), 1, "");
    spec.command = vec!["python3".into(), script.display().to_string()];
    // Who is not alone finds what another node put down.
    spec.nodes = 2;
    let slot = |attempt, every_ms, phase_ms| {
        let slot = CheckpointSlot { every_ms, phase_ms, length_ms: 1_000, bytes_per_s: 1 << 20 };
        fs::create_dir_all(dir.path().join("job")).unwrap();
        JobFolder::new(dir.path().join("job"), attempt).put_slot(slot, 1).unwrap();
    };
    let saved = dir.path().join("checkpoint/last.pt");

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    slot(1, HOUR_MS, (now + HOUR_MS / 2) % HOUR_MS);
    spec.env.insert("STEPS".into(), "150".into());
    assert_eq!(run(&spec, |_| {}).unwrap(), Outcome::Finished, "{}", log(&dir, 0));
    assert!(!saved.exists(), "its slot is in half an hour");

    spec.attempt = 2;
    slot(2, 1_000, 500);
    spec.env.insert("STEPS".into(), "1000000".into());
    let stopped = run(&spec, |control| {
        wait_for(|| saved.exists());
        control.stop();
    });
    assert_eq!(stopped.unwrap(), Outcome::Stopped, "{}", log(&dir, 0));
}

#[test]
fn the_descriptor_is_at_its_end_when_a_job_is_asked_to_make_room() {
    let dir = TempDir::new().unwrap();
    // It does not wait for the file, and looks only then.
    let script = r#"read -u $FF2_SUSPEND_FD; [ -e $FF2_SUSPEND ] && echo "asked" && exit 0"#;
    let outcome = run(&spec(dir.path(), 1, script), |control| {
        thread::sleep(Duration::from_millis(300));
        control.suspend(MakeRoom::within(Duration::from_secs(60)));
    });
    let Outcome::Suspended { how: Suspension::Ended, .. } = outcome.unwrap() else { panic!() };
    assert_eq!(log(&dir, 0), "asked\n");
}

/// As with a full disk: the request cannot be written, and that must not cost the job its grace.
#[test]
fn a_job_whose_folder_cannot_be_written_is_told_by_the_descriptor() {
    let dir = TempDir::new().unwrap();
    let script = r#"rm -r $(dirname $FF2_STATE); touch ready; read -u $FF2_SUSPEND_FD; sleep 0.3; touch saved"#;
    let ready = dir.path().join("ready");
    let outcome = run(&spec(dir.path(), 1, script), |control| {
        wait_for(|| ready.exists());
        control.suspend(MakeRoom::within(Duration::from_secs(60)));
    });
    let Outcome::Suspended { how: Suspension::Ended, .. } = outcome.unwrap() else { panic!() };
    assert!(dir.path().join("saved").exists(), "it had its time");
}

#[test]
fn a_job_may_be_told_by_a_signal_and_what_its_shell_started_may_go_on_saving() {
    let dir = TempDir::new().unwrap();
    // The outer shell dies of the signal; the inner one saves for a while.
    let script = r#"
        bash -c 'trap "sleep 0.5; echo saved" USR1; echo ready; while :; do sleep 0.05; done' &
        wait
    "#;
    let spec = RunSpec { signal: Some(Notice::Usr1), ..spec(dir.path(), 1, script) };
    let path = JobFolder::new(&spec.folder, 1).log(0);
    let outcome = run(&spec, |control| {
        wait_for(|| fs::read_to_string(&path).is_ok_and(|text| text.contains("ready")));
        control.suspend(MakeRoom::within(Duration::from_secs(2)));
    });
    // It never says that it is done, and does not end either.
    let Outcome::Suspended { how: Suspension::Forced, .. } = outcome.unwrap() else { panic!() };
    assert!(log(&dir, 0).contains("saved"));
}

#[test]
fn a_job_that_ignores_everything_is_ended_when_its_time_is_over() {
    let dir = TempDir::new().unwrap();
    let script = "trap '' TERM INT HUP USR1 USR2; echo ready; while :; do sleep 0.1; done";
    let spec = spec(dir.path(), 2, script);
    let path = JobFolder::new(&spec.folder, 1).log(0);
    let outcome = run(&spec, |control| {
        wait_for(|| fs::read_to_string(&path).is_ok_and(|text| text.contains("ready")));
        control.suspend(MakeRoom::within(Duration::from_secs(1)));
    });
    let Outcome::Suspended { how, after_ms } = outcome.unwrap() else { panic!() };
    assert_eq!(how, Suspension::Forced);
    assert!((1_000..10_000).contains(&after_ms), "{after_ms}");
    assert_eq!(of_job(dir.path()), [""; 0]);
}

#[test]
fn a_job_that_forks_daemons_leaves_none_behind() {
    let dir = TempDir::new().unwrap();
    let script = r#"
        for n in 1 2 3; do setsid bash -c 'trap "" TERM; (sleep 1000 &) ; sleep 1000' >/dev/null 2>&1 & done
        (setsid sleep 1000 >/dev/null 2>&1 &)
        disown -a
        sleep 0.3
        if [ $WHAT = finish ]; then exit 0; fi
        echo ready; sleep 1000
    "#;
    let mut spec = spec(dir.path(), 1, script);
    spec.env.insert("WHAT".into(), "finish".into());
    assert_eq!(run(&spec, |_| {}).unwrap(), Outcome::Finished);
    assert_eq!(of_job(dir.path()), [""; 0]);
    spec.env.insert("WHAT".into(), "be stopped".into());
    let path = JobFolder::new(&spec.folder, 1).log(0);
    let outcome = run(&spec, |control| {
        wait_for(|| fs::read_to_string(&path).is_ok_and(|text| text.contains("ready")));
        assert!(of_job(dir.path()).len() >= 5);
        control.stop();
    });
    assert_eq!(outcome.unwrap(), Outcome::Stopped);
    assert_eq!(of_job(dir.path()), [""; 0]);
}

#[test]
fn what_cannot_be_started_is_told_and_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let command = vec!["/no/such/program".into()];
    let missing = RunSpec { command, ..spec(dir.path(), 2, "") };
    let error = run(&missing, |_| {}).unwrap_err().to_string();
    assert!(error.contains("/no/such/program"), "{error}");
    let nowhere = RunSpec { work_dir: "/no/such/folder".into(), ..spec(dir.path(), 1, "true") };
    assert!(run(&nowhere, |_| {}).unwrap_err().to_string().contains("/no/such/folder"));
    // The next one of the same process is as any other.
    assert_eq!(run(&spec(dir.path(), 2, "true"), |_| {}).unwrap(), Outcome::Finished);
}

#[test]
fn nothing_outlives_a_supervisor_that_is_killed() {
    if std::env::var_os("SUPERVISED").is_some() {
        let dir = std::env::var_os("SUPERVISED").unwrap();
        let (_control, orders) = control();
        supervise(&spec(Path::new(&dir), 2, "echo ready; exec sleep 1000"), orders, None).unwrap();
        return;
    }
    let dir = TempDir::new().unwrap();
    let mut supervisor = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "run::nothing_outlives_a_supervisor_that_is_killed"])
        .env("SUPERVISED", dir.path())
        .spawn()
        .unwrap();
    wait_for(|| of_job(dir.path()).len() == 2);
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    wait_for(|| of_job(dir.path()).is_empty());
}
