//! User rings on a cluster: an ordinary user, two mounts, a server that dies, and programs in Python.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::{self, File, OpenOptions, Permissions},
    os::unix::fs::{FileExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ff2_cluster_tests::{Cluster, may_skip};
use ff2_ring::{Op, Options, Region, Ring, RingFile};

const NOBODY: u32 = 65_534;
const MIB: usize = 1 << 20;
/// Servers that die may take so long to be replaced.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// A file that is open on a mount, and a ring with it.
struct Open {
    ring: Ring,
    region: Region,
    number: RingFile,
    file: File,
}

impl Open {
    fn new(path: &Path) -> Self {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.unwrap();
        let mut ring = Ring::connect(path, &Options::default()).unwrap();
        let region = ring.region(16 * MIB).unwrap();
        let number = ring.file(&file).unwrap();
        Self { ring, region, number, file }
    }

    /// Carries out one operation for each MiB of the region.
    fn each_mib(&mut self, op: impl Fn(RingFile, u64, &Region, std::ops::Range<usize>) -> Op) {
        for at in (0..16 * MIB).step_by(MIB) {
            self.ring.push(op(self.number, at as u64, &self.region, at..at + MIB)).unwrap();
        }
        let done = self.ring.reap(16, PATIENCE).unwrap();
        let moved: Vec<usize> = done.iter().map(|done| done.result().unwrap()).collect();
        assert_eq!(moved, [MIB; 16]);
    }

    fn write(&mut self, body: &[u8]) {
        self.region.write(0, body);
        self.each_mib(|file, at, region, range| Op::write(file, at, region, range).unwrap());
        self.ring.push(Op::fsync(self.number)).unwrap();
        assert_eq!(self.ring.reap(1, PATIENCE).unwrap()[0].result().unwrap(), 0);
    }

    fn read(&mut self) -> Vec<u8> {
        self.region.write(0, &vec![0; 16 * MIB]);
        self.each_mib(|file, at, region, range| Op::read(file, at, region, range).unwrap());
        let mut body = vec![0; 16 * MIB];
        self.region.read(0, &mut body);
        body
    }
}

fn body(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..2 * MIB).flat_map(|_| next().to_ne_bytes()).collect()
}

/// Runs `work` in a child with the rights of nobody. 0: it returned.
fn as_nobody(work: impl FnOnce()) -> i32 {
    // SAFETY: the child has this thread alone, and needs no other: the allocator is usable after a fork.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: system calls without memory, in a process of one thread.
        let changed = unsafe {
            libc::setgroups(0, std::ptr::null()) == 0
                && libc::setgid(NOBODY) == 0
                && libc::setuid(NOBODY) == 0
        };
        let is_done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok();
        // SAFETY: ends the child here, without what its parent would do at its end.
        unsafe { libc::_exit(i32::from(!(changed && is_done))) };
    }
    child
}

fn status_of(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status lives on this stack, and the child is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

fn rings(cluster: &Cluster) -> (u64, u64) {
    let status = cluster.json(&["admin", "status", "fuse/0"]).unwrap();
    let rings = &status["mount"]["user_rings"];
    (rings["rings"].as_u64().unwrap(), rings["region_bytes"].as_u64().unwrap())
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not yet: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn users_read_and_write_by_rings() {
    let cluster = Cluster::start().unwrap();
    let mounts = [cluster.mount(), cluster.mount_beside("other").unwrap()];
    // Others must get to the mounts.
    let folder = mounts[0].parent().unwrap();
    fs::set_permissions(folder, Permissions::from_mode(0o711)).unwrap();
    let [here, there] = mounts.each_ref().map(|mount| mount.join("user"));
    fs::create_dir(&here).unwrap();
    chown(&here, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::write(mounts[0].join("secret"), "secret").unwrap();
    fs::set_permissions(mounts[0].join("secret"), Permissions::from_mode(0o600)).unwrap();

    eprintln!("-- a user without privileges");
    let child = as_nobody(|| {
        assert!(File::open(mounts[0].join("secret")).is_err());
        let mut open = Open::new(&here.join("f"));
        open.write(&body(1));
        assert!(open.read() == body(1));
        let mut found = vec![0; 16 * MIB];
        open.file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == body(1), "as the kernel reads it");
        let only_read = File::open(here.join("f")).unwrap();
        let refused = open.ring.file(&only_read).unwrap();
        open.ring.push(Op::write(refused, 0, &open.region, 0..1).unwrap()).unwrap();
        let refused = open.ring.reap(1, PATIENCE).unwrap()[0].result().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
    });
    assert_eq!(status_of(child), 0);
    assert!(fs::read(there.join("f")).unwrap() == body(1), "on the other mount");

    eprintln!("-- two mounts");
    let mut both = [&here, &there].map(|folder| Open::new(&folder.join("f")));
    for round in 2..8 {
        let (from, to) = (round as usize % 2, (round as usize + 1) % 2);
        both[from].write(&body(round));
        assert!(both[to].read() == body(round), "by the other's ring, round {round}");
        let folder = [&here, &there][to];
        assert!(fs::read(folder.join("f")).unwrap() == body(round), "by the other's kernel");
    }

    eprintln!("-- a server dies");
    let mut writer = Open::new(&here.join("f"));
    thread::scope(|scope| {
        let working = scope.spawn(|| {
            for round in 10..30 {
                writer.write(&body(round));
                assert!(writer.read() == body(round), "round {round}");
            }
        });
        cluster.ctl(&["kill", "storaged/1"]).unwrap();
        working.join().unwrap();
    });
    drop((writer, both));
    assert!(fs::read(there.join("f")).unwrap() == body(29));

    eprintln!("-- a user is killed");
    until("no ring is left", || rings(&cluster) == (0, 0));
    let child = as_nobody(|| {
        let mut open = Open::new(&here.join("f"));
        loop {
            open.write(&body(40));
        }
    });
    until("its ring is there", || rings(&cluster) == (1, 16 * MIB as u64));
    thread::sleep(Duration::from_millis(200));
    // SAFETY: no memory is touched, and the child was not waited for.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    assert_eq!(libc::WTERMSIG(status_of(child)), libc::SIGKILL);
    until("nothing is left of it", || rings(&cluster) == (0, 0));
    fs::remove_file(here.join("f")).unwrap();
    cluster.up().unwrap();
}

/// The library that cargo built beside this test.
fn library() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let path = program.with_file_name("libff2_ring.so");
    assert!(path.exists(), "no {}", path.display());
    path
}

/// An environment with what the package's tests import; made once, and kept beside the build. `None`: pip
/// reaches no index, and the caller may do without.
fn python() -> Option<PathBuf> {
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().nth(3).unwrap();
    let folder = target.join("tmp/python");
    let python = folder.join("bin/python");
    let run = |command: &mut Command| command.status().is_ok_and(|status| status.success());
    let imports = "import fsspec, ml_dtypes, numpy, pytest, safetensors, setuptools";
    if run(Command::new(&python).args(["-c", imports])) {
        return Some(python);
    }
    let made = run(Command::new("python3").args(["-m", "venv"]).arg(&folder))
        && run(Command::new(&python).args(["-m", "pip", "install", "-q", "--retries", "1"]).args(
            ["fsspec", "ml_dtypes", "numpy", "pytest", "safetensors", "setuptools", "wheel"],
        ));
    let missing = "pip cannot install what the Python tests need";
    assert!(made || may_skip(missing), "{missing}; FF2_TEST_ALLOW_SKIP=pip leaves them out");
    made.then_some(python)
}

#[test]
fn python_reads_by_rings() {
    let Some(python) = python() else { return };
    let cluster = Cluster::start().unwrap();
    // A copy: an installation leaves files in the folder that it comes from.
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../client/python");
    let copied = Command::new("cp").arg("-r").arg(&source).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    let (package, site) = (folder.path().join("python"), folder.path().join("site"));
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]);
    pip.arg("--target").arg(&site).arg(&package).env("FF2_RING_LIB", library());
    assert!(pip.status().unwrap().success(), "the package cannot be installed");
    let tests = cluster.mount().join("python");
    fs::create_dir(&tests).unwrap();
    let mut pytest = Command::new(&python);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]);
    pytest.arg(package.join("tests")).current_dir(&site);
    pytest.env("PYTHONPATH", &site).env("FF2_TEST_FOLDER", &tests).env_remove("FF2_RING_LIB");
    assert!(pytest.status().unwrap().success(), "a test of the package failed");
}
