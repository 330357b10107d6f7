//! Real mounts of the real binary, over a cluster inside the test. They need `/dev/fuse` and root,
//! as the mount itself does; without them they fail, unless `FF2_TEST_ALLOW_SKIP=1` is set. Requests come
//! over io_uring where the kernel has it, or as `FF2_TEST_IO_URING` (`no`) says.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../../../tests/in_process/fake.rs"]
#[allow(dead_code, reason = "the client's own tests use the rest")]
mod fake;

mod files;
mod life;
mod locks;
mod many;
mod mapped;
mod rings;
mod rings_c;
mod subtrees;
mod users;
mod ways;
mod xattrs;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fake::{CLUSTER_ID, Fake};
use tempfile::TempDir;

/// A cluster, and a folder for the mounts of one test.
struct World {
    fake: Fake,
    folder: TempDir,
    /// Runs the cluster's servers.
    _runtime: tokio::runtime::Runtime,
}

struct Mount {
    process: Child,
    path: PathBuf,
    data_dir: PathBuf,
}

/// `None`: this machine has no FUSE for us, and the caller may do without.
fn world() -> Option<World> {
    let usable = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    if !usable {
        let allowed = std::env::var("FF2_TEST_ALLOW_SKIP").is_ok_and(|value| value == "1");
        let missing = "/dev/fuse cannot be opened here: load the fuse module and run as root";
        assert!(allowed, "{missing}; FF2_TEST_ALLOW_SKIP=1 leaves the tests of mounts out");
        eprintln!("skipped: {missing}");
        return None;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let fake = runtime.block_on(Fake::start());
    let folder = tempfile::Builder::new().prefix("ff2-mount-").tempdir().unwrap();
    // Other users must get to the mounts in it.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Some(World { fake, folder, _runtime: runtime })
}

impl World {
    fn mount(&self, name: &str) -> Mount {
        self.mount_with(name, "")
    }

    /// `more`: further lines of the configuration.
    fn mount_with(&self, name: &str, more: &str) -> Mount {
        let token_file = self.folder.path().join("token");
        self.fake.token(0, true).save(&token_file).unwrap();
        self.mount_as(name, &token_file, more)
    }

    fn mount_as(&self, name: &str, token_file: &Path, more: &str) -> Mount {
        let (path, data_dir) =
            (self.folder.path().join(name), self.folder.path().join(format!("{name}.data")));
        fs::create_dir_all(&path).unwrap();
        fs::create_dir_all(&data_dir).unwrap();
        let config = data_dir.join("mount.toml");
        let mut text = format!(
            "cluster_id = {CLUSTER_ID:?}\nmetads = {:?}\ntoken_file = {token_file:?}\n\
             mount_point = {path:?}\ndata_dir = {data_dir:?}\n{more}\n",
            self.fake.metads(),
        );
        if !more.contains("io_uring") {
            let over = std::env::var("FF2_TEST_IO_URING").unwrap_or_else(|_| "yes".into());
            text.push_str(&format!("io_uring = {over:?}\n"));
        }
        fs::write(&config, text).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_ff2-fuse"))
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mount = Mount { process, path, data_dir };
        until("the mount", || mount.is_ready());
        mount
    }
}

impl Mount {
    fn is_ready(&self) -> bool {
        self.status().is_some_and(|status| status["ready"] == true)
    }

    /// What its admin socket shows, once it answers.
    fn status(&self) -> Option<serde_json::Value> {
        let ask = ff2_daemon::admin_get(&self.data_dir, "/status");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask).ok()
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    fn signal(&self, signal: i32) {
        // SAFETY: kill touches no memory; the process is our own child, not yet waited for.
        let outcome = unsafe { libc::kill(self.process.id() as i32, signal) };
        assert_eq!(outcome, 0);
    }

    /// SIGSTOP, until it took effect: the thread that is to handle it may have to wait for a core, and the
    /// others go on until it did.
    fn stand_still(&self) {
        self.signal(libc::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.process.id());
        let stands = |task: &Path| {
            let status = fs::read_to_string(task.join("stat")).unwrap_or_default();
            status.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
        };
        until("the stop", || {
            fs::read_dir(&tasks).unwrap().all(|task| stands(&task.unwrap().path()))
        });
    }

    /// As an administrator stops it.
    fn stop(mut self) {
        self.signal(libc::SIGTERM);
        let status = self.process.wait().unwrap();
        assert!(status.success(), "a clean stop: {status}");
        assert!(!is_mounted(&self.path), "still mounted");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // The guard detaches it; the folder can only be removed after that.
        until("the end of the mount", || !is_mounted(&self.path));
    }
}

fn is_mounted(path: &Path) -> bool {
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap();
    list.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a shell command in a folder and returns what it printed.
fn shell(folder: &Path, command: &str) -> String {
    let output = Command::new("sh").arg("-ec").arg(command).current_dir(folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {text}{errors}");
    text
}

fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}
