//! A local cluster of real processes, for tests, driven through `ff2ctl` as a person would.
//!
//! Owns the cluster's folder and takes everything down when dropped: no test leaves processes, mounts
//! or files behind. The daemons must have been built (`cargo build --workspace --bins`).

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

pub mod history;
pub mod image;
pub mod load;
pub mod network;
mod ports;
pub mod suite;
pub mod throttle;
pub mod upgrade;

/// The smallest cluster in which each role can lose a server.
#[rustfmt::skip]
pub const SMALLEST: [&str; 10] = [
    "--metad", "3", "--storaged", "4", "--disks", "1", "--replicas", "3", "--disk-size", "4GiB",
];

/// A running cluster with a mount.
#[derive(Debug)]
pub struct Cluster {
    folder: tempfile::TempDir,
    dir: PathBuf,
    /// The network namespace that everything runs in.
    network: Option<String>,
    program: PathBuf,
    /// Of `ff2ctl up`.
    shape: Vec<String>,
    /// What `ff2ctl`, and whatever it starts, finds in its environment.
    environment: Vec<(String, String)>,
}

/// Where a cluster is put. By default in a folder of its own, on the host's loopback network.
#[derive(Debug, Default)]
pub struct Site<'a> {
    /// The folder that it keeps everything in.
    pub dir: Option<&'a Path>,
    pub network: Option<&'a network::Network>,
    /// The release that it is made with.
    pub release: Option<&'a upgrade::Release>,
}

impl Cluster {
    /// Starts a cluster and mounts it.
    pub fn start() -> Result<Self> {
        Self::start_with(&SMALLEST)
    }

    /// As [`Cluster::start`], of another shape: arguments of `ff2ctl up`.
    pub fn start_with(shape: &[&str]) -> Result<Self> {
        Self::start_at(&Site::default(), shape)
    }

    /// As [`Cluster::start_with`], somewhere else.
    pub fn start_at(site: &Site<'_>, shape: &[&str]) -> Result<Self> {
        let folder = scratch_folder("cluster-")?;
        let program = target_folder()?.join("debug/ff2ctl");
        ensure!(
            program.exists(),
            "{} is missing: run `cargo build --workspace --bins` first",
            program.display()
        );
        let mut shape: Vec<String> = shape.iter().map(|&part| part.to_owned()).collect();
        if site.network.is_none() {
            shape.extend(ports::of_slot()?);
        }
        let dir = site.dir.map_or_else(|| folder.path().join("cluster"), Path::to_path_buf);
        let network = site.network.map(|network| network.path());
        let environment = Vec::new();
        let mut cluster = Self { folder, dir, network, program, shape, environment };
        if let Some(release) = site.release {
            cluster.use_release(release);
        }
        cluster.up()?;
        Ok(cluster)
    }

    /// Starts whatever does not run, and mounts.
    pub fn up(&self) -> Result<()> {
        let mount = self.mount().display().to_string();
        let shape: Vec<&str> = self.shape.iter().map(String::as_str).collect();
        self.ctl(&[&["up", "--mount", &mount], &shape[..]].concat()).map(drop)
    }

    /// Starts one process anew as another effective user with the rights that it needs, so that a [`Network`] can
    /// tell what it sends.
    ///
    /// [`Network`]: network::Network
    pub fn restart_as(&self, name: &str, uid: u32) -> Result<()> {
        self.ctl(&["kill", name])?;
        let mount = self.mount().display().to_string();
        let mut up = Command::new("setpriv");
        let rights = "+dac_override,+fowner,+sys_admin,+ipc_lock,+kill";
        up.arg(format!("--euid={uid}"));
        up.arg(format!("--inh-caps={rights}")).arg(format!("--ambient-caps={rights}"));
        if let Some(network) = &self.network {
            up.arg("nsenter").arg(format!("--net={network}"));
        }
        up.arg(&self.program).arg("--dir").arg(&self.dir).args(["up", "--mount", &mount]);
        suite::run(up.args(&self.shape)).map(drop)
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    pub fn mount(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    /// Runs `ff2ctl --dir D ARGS` and returns what it prints; its error output is part of the failure.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        let output = self.ctl_output(args)?;
        ensure!(
            output.status.success(),
            "ff2ctl {}: {}{}",
            args.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).context("ff2ctl prints UTF-8")
    }

    pub fn ctl_output(&self, args: &[&str]) -> Result<Output> {
        let mut command = match &self.network {
            None => Command::new(&self.program),
            Some(network) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={network}")).arg(&self.program);
                command
            }
        };
        command
            .arg("--dir")
            .arg(&self.dir)
            .args(args)
            .envs(self.environment.iter().cloned())
            .output()
            .with_context(|| format!("start {}", self.program.display()))
    }

    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.ctl(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("parse {text}"))
    }

    /// A program of the build that `ff2ctl` belongs to.
    pub fn program(&self, name: &str) -> PathBuf {
        self.program.with_file_name(name)
    }

    /// The processes as `ff2ctl ps` knows them.
    pub fn processes(&self) -> Result<Vec<Value>> {
        let ps = self.json(&["ps"])?;
        let list = ps.as_array().or_else(|| ps["processes"].as_array());
        Ok(list.context("ps prints a list")?.clone())
    }

    /// What `ps` says of a process that is named `role/index`.
    fn process(&self, name: &str) -> Result<Value> {
        let is_it = |known: &Value| {
            let role = known["role"].as_str().unwrap_or("");
            format!("{role}/{}", known["index"]) == name
        };
        self.processes()?.into_iter().find(is_it).with_context(|| format!("there is no {name}"))
    }

    /// The ports that a process listens on.
    pub fn ports(&self, name: &str) -> Result<Vec<u64>> {
        let process = self.process(name)?;
        let addresses = process["addresses"].as_object().context("ps shows addresses")?;
        let ports =
            addresses.values().filter_map(|at| at.as_str()?.rsplit(':').next()?.parse().ok());
        Ok(ports.collect())
    }

    pub fn pid(&self, name: &str) -> Result<Pid> {
        pid_of(&self.process(name)?).with_context(|| format!("{name} does not run"))
    }

    /// Sends a signal to a process that is named `role/index`.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let pid = self.pid(name)?;
        kill_process(pid, signal).with_context(|| format!("signal {name}"))
    }

    /// All servers and mounts that run.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        Ok(self.processes()?.iter().filter_map(pid_of).collect())
    }

    /// `role/index` of the metad that leads `group`.
    pub fn leader(&self, group: u64) -> Result<String> {
        let status = self.json(&["status"])?;
        let groups = status["groups"].as_array().context("status has groups")?;
        let node = groups
            .iter()
            .find(|entry| entry["group"] == group)
            .and_then(|entry| entry["leader_node"].as_u64())
            .filter(|node| *node > 0)
            .with_context(|| format!("group {group} has no leader"))?;
        Ok(format!("metad/{}", node - 1))
    }

    /// `role/index` of the process that serves a mount of this cluster.
    pub fn process_of_mount(&self, path: &Path) -> Result<String> {
        let processes = self.processes()?;
        let process = processes
            .iter()
            .find(|process| process["mount_point"].as_str().map(Path::new) == Some(path))
            .with_context(|| format!("{} is no mount of the cluster", path.display()))?;
        Ok(format!("fuse/{}", process["index"]))
    }

    /// The storage node whose disks lie in a folder of the cluster (`storaged-0`).
    pub fn node_of(&self, folder: &str) -> Result<u64> {
        let nodes = self.json(&["node", "list"])?;
        let path = self.dir.join(folder).display().to_string();
        let is_here = |disk: &Value| disk["path"].as_str().is_some_and(|at| at.starts_with(&path));
        let has_it =
            |node: &&Value| node["disks"].as_array().is_some_and(|d| d.iter().any(is_here));
        let nodes = nodes.as_array().context("nodes are listed")?;
        let node = nodes.iter().find(has_it).and_then(|node| node["id"].as_u64());
        node.with_context(|| format!("no node has its disks in {path}"))
    }

    /// The targets on the disk in this folder.
    pub fn targets_on(&self, disk: &Path) -> Result<Vec<u64>> {
        let list = self.json(&["target", "list"])?;
        let list = list.as_array().context("targets are listed")?;
        let is_here = |target: &&Value| target["disk"].as_str().map(Path::new) == Some(disk);
        let here = list.iter().filter(is_here).filter_map(|target| target["id"].as_u64());
        Ok(here.collect())
    }

    /// Puts an empty disk in the place of disk 0 of a storage server that is down, and formats it.
    pub fn renew_disk(&self, storaged: u32) -> Result<()> {
        let own = self.dir.join(format!("storaged-{storaged}"));
        let disk = own.join("disk-0");
        fs::remove_dir_all(&disk).context("take the disk out")?;
        fs::create_dir(&disk).context("put a disk in")?;
        let mut format = Command::new(self.program("ff2-storaged"));
        format.arg("--config").arg(own.join("storaged.toml")).arg("format");
        suite::run(&mut format).map(drop)
    }

    /// Waits until nothing is dead, missing or catching up.
    pub fn wait_healthy(&self, at_most: Duration) -> Result<()> {
        let started = Instant::now();
        let mut last = Value::Null;
        while started.elapsed() < at_most {
            // Right after a kill no metad may lead: that is no failure yet.
            if let Ok(status) = self.json(&["status"]) {
                if status["healthy"] == true {
                    return Ok(());
                }
                last = status["problems"].clone();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        bail!("not healthy after {} s: {last}", at_most.as_secs())
    }

    /// Fails unless names, inodes and chunks agree with each other. Returns how many chunks there are, on
    /// all chains.
    pub fn fsck(&self) -> Result<u64> {
        self.json(&["fsck"])?["chunks"].as_u64().context("fsck counts chunks")
    }

    /// The end of a load: every acknowledged byte is there on a fresh mount, and no append waited longer than
    /// `pause_max`.
    pub fn ensure_kept(&self, load: load::Load, pause_max: Duration) -> Result<()> {
        let writers = self.end(load)?;
        self.remount()?;
        for writer in &writers {
            writer.check()?;
            println!("{} records, the longest pause {:?}", writer.records, writer.pause_max);
            ensure!(writer.pause_max < pause_max, "{writer:?} waited too long");
        }
        Ok(())
    }

    /// What each process works on, for a test in which something does not end.
    /// Ends a load. If one does not end, it is told who waits for what.
    pub fn end(&self, load: load::Load) -> Result<Vec<load::Acknowledged>> {
        load.stop().inspect_err(|_| self.print_in_flight())
    }

    fn print_in_flight(&self) {
        eprintln!("{}", self.ctl(&["status"]).unwrap_or_else(|error| error.to_string()));
        for process in self.processes().unwrap_or_default() {
            let name = format!("{}/{}", process["role"].as_str().unwrap_or(""), process["index"]);
            let told = self.ctl(&["admin", "inflight", &name]);
            eprintln!("---- {name}\n{}", told.unwrap_or_else(|error| error.to_string()));
        }
    }

    /// Mounts once more, beside [`Cluster::mount`].
    pub fn mount_beside(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        self.ctl(&["mount", &path.display().to_string()])?;
        Ok(path)
    }

    pub fn remount(&self) -> Result<()> {
        let mount = self.mount().display().to_string();
        self.ctl(&["umount", &mount])?;
        self.ctl(&["mount", &mount]).map(drop)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if env::var_os("FF2_TEST_KEEP").is_some() {
            eprintln!("left running: ff2ctl --dir {} down --purge", self.dir().display());
            return;
        }
        if std::thread::panicking() {
            print_logs(&self.dir());
        }
        if let Err(problem) = self.ctl(&["down", "--purge"]) {
            eprintln!("{problem:#}");
        }
    }
}

/// Whether a test may be left out because the machine lacks `missing`. Only if `FF2_TEST_ALLOW_SKIP`
/// is 1, or names the program with which `missing` begins: what is left out silently is believed to be
/// tested.
pub fn may_skip(missing: &str) -> bool {
    let value = env::var("FF2_TEST_ALLOW_SKIP").unwrap_or_default();
    let program = missing.split(' ').next();
    let allowed = value.split(',').any(|word| word == "1" || Some(word) == program);
    if allowed {
        eprintln!("SKIPPED: {missing}");
    }
    allowed
}

/// A program of this build.
pub fn built(name: &str) -> Result<PathBuf> {
    Ok(target_folder()?.join("debug").join(name))
}

/// Whether the test runs as root. If not it fails, unless what needs root may be left out.
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let missing = "changing users, mounts or networks needs root";
    assert!(is_root || may_skip(missing), "{missing}; FF2_TEST_ALLOW_SKIP=1 leaves this out");
    is_root
}

/// The last lines of each daemon's log, for a failed test.
fn print_logs(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(log) = fs::read_to_string(entry.path().join("log")) else { continue };
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("---- {}", entry.path().display());
        for line in &lines[lines.len().saturating_sub(15)..] {
            eprintln!("{line}");
        }
    }
}

/// Kills these processes in one moment, and waits for their end. Starts no program: see [`load`].
pub fn kill_at_once(pids: &[Pid]) -> Result<()> {
    for pid in pids {
        kill_process(*pid, Signal::KILL).context("kill")?;
    }
    for pid in pids {
        while test_kill_process(*pid).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

fn pid_of(process: &Value) -> Option<Pid> {
    Pid::from_raw(i32::try_from(process["pid"].as_u64()?).ok()?)
}

/// A folder that goes when it is dropped. Not in /tmp: that may be a tmpfs, which has no direct I/O.
pub fn scratch_folder(prefix: &str) -> Result<tempfile::TempDir> {
    let below = target_folder()?.join("tmp");
    fs::create_dir_all(&below).context("create the folder of tests")?;
    Ok(tempfile::Builder::new().prefix(prefix).tempdir_in(below)?)
}

/// The folder that cargo builds into: tests run from `target/debug/deps`.
pub fn target_folder() -> Result<PathBuf> {
    let program = env::current_exe().context("find the test's own program")?;
    // Tests lie in target/debug/deps, programs in target/debug.
    let is_test = program.parent().is_some_and(|folder| folder.ends_with("deps"));
    let above = if is_test { 3 } else { 2 };
    let folder = program.ancestors().nth(above).context("the program lies in target/debug")?;
    Ok(folder.to_path_buf())
}
