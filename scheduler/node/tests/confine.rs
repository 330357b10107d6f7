//! Runs in real control groups. They need a cgroup v2 hierarchy that this process may divide: root at its top, or
//! a service or scope of systemd's with `Delegate=yes`. Where it may not they fail, unless `FF2_TEST_ALLOW_SKIP`
//! is 1 or names `cgroup2`. All of them run in a virtual machine as well, where it is all theirs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    io::ErrorKind,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ff2_node::{Confinement, Delegation, GpuGuard, Limits, Refusal};

/// Generous: emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(60);

const LIMITS: Limits = Limits { cpus: 1, memory_mib: 64, pids: 64, gpus: None };

/// `None`: nobody may confine here, and the tests may be left out.
fn delegation() -> Option<Delegation> {
    match Delegation::claim() {
        Ok(delegation) => Some(delegation),
        Err(error @ (Refusal::Failed(..) | Refusal::Threaded(_))) => panic!("{error}"),
        Err(refusal) => {
            let value = std::env::var("FF2_TEST_ALLOW_SKIP").unwrap_or_default();
            let allowed = value.split(',').any(|word| ["1", "cgroup2"].contains(&word));
            assert!(allowed, "{refusal}; FF2_TEST_ALLOW_SKIP=cgroup2 leaves confinement out");
            eprintln!("SKIPPED: cgroup2 cannot be used: {refusal}");
            None
        }
    }
}

/// A group that is ended and removed with the test.
struct Group(Option<Confinement>);

impl Group {
    fn new(name: &str, limits: &Limits) -> Option<Self> {
        let name = format!("test-{name}-{}", std::process::id());
        Some(Self(Some(Confinement::create(&delegation()?, &name, limits).unwrap())))
    }

    fn file(&self, name: &str) -> String {
        let delegation = delegation().unwrap();
        let names = delegation.names().unwrap();
        let path = names.iter().map(|name| delegation.folder().join(name)).find(|path| {
            Confinement::open(&delegation, path.file_name().unwrap().to_str().unwrap()).unwrap()
                == self.0
        });
        fs::read_to_string(path.unwrap().join(name)).unwrap()
    }

    /// A shell inside.
    fn shell(&self, script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        self.confine(&mut command).unwrap();
        command.spawn().unwrap()
    }

    fn wait_empty(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.is_empty().unwrap() {
            assert!(Instant::now() < until, "left inside: {:?}", self.procs());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl std::ops::Deref for Group {
    type Target = Confinement;

    fn deref(&self) -> &Confinement {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(group) = self.0.take() else { return };
        group.kill().unwrap();
        let until = Instant::now() + PATIENCE;
        while !group.is_empty().unwrap() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        group.remove().unwrap();
    }
}

#[test]
fn limits_are_the_kernels() {
    let Some(group) = Group::new("limits", &LIMITS) else { return };
    assert_eq!(group.file("cpu.max"), "100000 100000\n");
    assert_eq!(group.file("memory.max"), "67108864\n");
    assert_eq!(group.file("memory.oom.group"), "1\n");
    assert_eq!(group.file("pids.max"), "64\n");
    assert!(group.is_empty().unwrap());
}

#[test]
fn a_group_is_found_again_until_it_is_removed() {
    let Some(delegation) = delegation() else { return };
    let name = format!("test-again-{}", std::process::id());
    let group = Confinement::create(&delegation, &name, &LIMITS).unwrap();
    let again = Confinement::create(&delegation, &name, &LIMITS);
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(delegation.names().unwrap().contains(&name));
    let found = Confinement::open(&Delegation::claim().unwrap(), &name).unwrap();
    assert_eq!(found.as_ref(), Some(&group));
    group.remove().unwrap();
    assert_eq!(Confinement::open(&delegation, &name).unwrap(), None);
    assert!(!delegation.names().unwrap().contains(&name));
}

#[test]
fn a_refused_limit_or_name_leaves_nothing() {
    let Some(delegation) = delegation() else { return };
    let name = format!("test-refused-{}", std::process::id());
    let error = Confinement::create(&delegation, &name, &Limits { cpus: 0, ..LIMITS }).unwrap_err();
    assert!(error.to_string().contains("cpu.max"), "{error}");
    assert!(!delegation.names().unwrap().contains(&name));
    for name in ["", "..", "a/b", ".hidden", &"a".repeat(65)] {
        let error = Confinement::create(&delegation, name, &LIMITS).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
    }
}

#[test]
fn who_is_over_its_memory_is_killed_as_a_whole() {
    let Some(group) = Group::new("memory", &LIMITS) else { return };
    // Half of it is fine.
    let fill = |mib: u32| format!("x=$(head -c {}m /dev/zero | tr '\\0' x); sleep 0", mib);
    assert!(group.shell(&fill(8)).wait().unwrap().success());
    assert_eq!(group.events().unwrap().oom_kill, 0);
    // An innocent sibling goes too.
    let mut sibling = group.shell("sleep 300");
    let mut glutton = group.shell(&fill(200));
    assert_eq!(glutton.wait().unwrap().signal(), Some(9));
    assert_eq!(sibling.wait().unwrap().signal(), Some(9));
    group.wait_empty();
    assert!(group.events().unwrap().oom_kill >= 2, "{:?}", group.events());
}

#[test]
fn a_bomb_of_forks_stays_small() {
    let Some(group) = Group::new("pids", &Limits { pids: 8, ..LIMITS }) else { return };
    let mut bomb =
        group.shell("i=0; while [ $i -lt 50 ]; do sleep 300 & i=$((i+1)); done 2>/dev/null");
    bomb.wait().unwrap();
    assert!(group.procs().unwrap().len() <= 8);
    assert!(group.events().unwrap().pids_max >= 1);
}

#[test]
fn a_share_of_the_processor_is_a_bound() {
    // More than one core is needed to use more than one.
    let cores = thread::available_parallelism().unwrap().get();
    let Some(group) = Group::new("cpu", &LIMITS) else { return };
    assert!(cores > 1, "one core has nothing to be kept from");
    let spinning: Vec<Child> = (0..2).map(|_| group.shell("while :; do :; done")).collect();
    let throttled = || {
        let stat = group.file("cpu.stat");
        let line = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let until = Instant::now() + PATIENCE;
    while throttled() == 0 {
        assert!(Instant::now() < until, "{}", group.file("cpu.stat"));
        thread::sleep(Duration::from_millis(50));
    }
    group.kill().unwrap();
    for mut child in spinning {
        child.wait().unwrap();
    }
}

#[test]
fn daemons_that_a_run_left_are_ended_with_it() {
    let Some(group) = Group::new("daemons", &LIMITS) else { return };
    let script =
        "for i in 1 2 3; do setsid sh -c 'trap \"\" TERM; sleep 300 & sleep 300' & done; sleep 0";
    assert!(group.shell(script).wait().unwrap().success());
    let until = Instant::now() + PATIENCE;
    while group.procs().unwrap().len() < 6 {
        assert!(Instant::now() < until, "{:?}", group.procs());
        thread::sleep(Duration::from_millis(5));
    }
    let busy = Confinement::clone(&group).remove();
    assert_eq!(busy.unwrap_err().kind(), ErrorKind::ResourceBusy);
    assert!(!group.is_empty().unwrap());
    group.kill().unwrap();
    group.wait_empty();
}

#[test]
fn a_process_may_be_moved_inside() {
    let Some(group) = Group::new("enter", &LIMITS) else { return };
    let mut outside = Command::new("sleep").arg("300").spawn().unwrap();
    let pid = i32::try_from(outside.id()).unwrap();
    group.enter(rustix::process::Pid::from_raw(pid).unwrap()).unwrap();
    assert_eq!(group.procs().unwrap(), [pid]);
    group.kill().unwrap();
    assert_eq!(outside.wait().unwrap().signal(), Some(9));
}

/// `/dev/null`, `/dev/zero` and `/dev/full` stand for three GPUs of one driver.
#[test]
fn only_the_runs_own_devices_open() {
    if delegation().is_none() {
        return;
    }
    GpuGuard::probe().unwrap();
    let gpus = Some(GpuGuard::new(1, [5, 7]));
    let group = Group::new("devices", &Limits { gpus, ..LIMITS }).unwrap();
    let opens = |path: &str| group.shell(&format!(": < {path}")).wait().unwrap().success();
    assert!(opens("/dev/zero") && opens("/dev/full"));
    assert!(!opens("/dev/null") && !opens("/dev/random"));
    // Nor does a device file of its own help.
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("null");
    let made = group.shell(&format!("mknod {} c 1 3", node.display())).wait().unwrap();
    assert!(!made.success() && !node.exists());
    // The same shell outside may, and one whose guard is for another driver.
    assert!(Command::new("sh").args(["-c", ": < /dev/null"]).status().unwrap().success());
    let gpus = Some(GpuGuard::new(195, [0]));
    let other = Group::new("others-devices", &Limits { gpus, ..LIMITS }).unwrap();
    assert!(other.shell(": < /dev/null").wait().unwrap().success());
}

/// Whatever the host has.
#[test]
fn all_of_this_holds_in_a_virtual_machine() {
    ff2_vm::rerun_tests("all_of_this_holds_in_a_virtual_machine");
}
