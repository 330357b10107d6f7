//! The demo's folder: taken by one demo at a time, and removed only when nothing lives in it any more.
//!
//! ```text
//! F/demo.lock   held locked while the demo runs; left unlocked, it tells of a demo that was killed
//! F/cluster/    the cluster's folder
//! F/mnt/        the mount point
//! F/python/     an environment with the client of OpenAI, where this machine has none
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::HumanBytes;
use rustix::fs::OFlags;

use super::{say::Say, shown};
use crate::{
    cluster::make_folder,
    mount::{self, MountState},
    own::Own,
    stop::Stop,
};

const LOCK: &str = "demo.lock";
/// Three replicas of the input, and as much again for what the compiler writes, logs and indexes.
const COPIES: u64 = 4;
const SPACE_MIN: u64 = 2 << 30;
/// A server that a killed `ff2ctl up` has just started needs a moment to write its pid file, by which
/// `down` finds it.
const SETTLE: Duration = Duration::from_secs(1);
const DAEMONS: [&str; 3] = ["ff2-metad", "ff2-storaged", "ff2-fuse"];

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    say: Say,
    /// Keeps other demos out.
    _lock: File,
}

impl Folder {
    /// Makes the folder. What a killed demo left there is taken down first; anything else stays.
    pub(super) fn claim(path: &Path, input_bytes: u64, say: Say) -> Result<Self> {
        let path = std::path::absolute(path).context("find the demo's folder")?;
        if path.exists() {
            let _lock = lock_leftover(&path)?;
            say.line(&format!("An earlier demo in {} did not end: taking it down.", shown(&path)));
            take_down(&path, say)?;
        }
        make_folder(&path)?;
        let lock = File::create(path.join(LOCK)).context("make the demo's lock")?;
        lock.try_lock().context("lock the demo's folder")?;
        let folder = Self { path, say, _lock: lock };
        if let Err(problem) = check_disk(&folder.path, input_bytes) {
            folder.remove()?;
            return Err(problem);
        }
        Ok(folder)
    }

    pub(super) fn cluster(&self) -> PathBuf {
        cluster(&self.path)
    }

    pub(super) fn mount(&self) -> PathBuf {
        mount_point(&self.path)
    }

    pub(super) fn python(&self) -> PathBuf {
        python(&self.path)
    }

    /// Takes the cluster down and removes everything.
    pub(super) fn remove(self) -> Result<()> {
        take_down(&self.path, self.say)
    }

    /// As [`Self::remove`], after work that was stopped in the middle.
    pub(super) fn remove_after_stop(self) -> Result<()> {
        std::thread::sleep(SETTLE);
        self.remove()
    }

    /// Leaves it all to the user; no later demo takes it for a leftover.
    pub(super) fn keep(self) -> Result<()> {
        fs::remove_file(self.path.join(LOCK)).context("remove the demo's lock")
    }

    pub(super) fn how_to_remove(&self) -> String {
        how_to_remove(&self.path)
    }

    /// Copies the servers' logs beside the folder, which is about to be removed.
    pub(super) fn save_logs(&self) -> Result<PathBuf> {
        let saved = self.path.with_extension("logs");
        make_folder(&saved)?;
        for entry in fs::read_dir(self.cluster()).context("read the cluster's folder")? {
            let entry = entry?;
            let log = entry.path().join("log");
            if log.is_file() {
                fs::copy(&log, saved.join(entry.file_name())).context("copy a log")?;
            }
        }
        Ok(saved)
    }
}

/// What to type to be rid of a cluster in the demo's folder.
fn how_to_remove(path: &Path) -> String {
    let program = std::env::current_exe().map_or_else(|_| "ff2ctl".to_owned(), |p| shown(&p));
    let here = std::env::current_dir().map(|here| shown(&here) + "/").unwrap_or_default();
    let program = program.strip_prefix(&here).unwrap_or(&program);
    format!("{program} --dir {0}/cluster down --purge && rm -r {0}", path.display())
}

fn cluster(path: &Path) -> PathBuf {
    path.join("cluster")
}

fn mount_point(path: &Path) -> PathBuf {
    path.join("mnt")
}

fn python(path: &Path) -> PathBuf {
    path.join("python")
}

/// The lock of a demo that was killed.
fn lock_leftover(path: &Path) -> Result<File> {
    let lock = match File::open(path.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "{} exists. If it is a cluster of `ff2ctl demo --keep`, remove it with `{}`; else name \
             another folder with --folder",
            path.display(),
            how_to_remove(path)
        ),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            bail!("a demo runs in {}: wait for it, or name another with --folder", path.display())
        }
        Err(TryLockError::Error(error)) => Err(error).context("lock the demo's folder"),
    }
}

/// Nothing is removed while a server runs or something is mounted. Only the cluster's folder, whose
/// servers are gone, and the environment of Python go with all that is in them.
fn take_down(path: &Path, say: Say) -> Result<()> {
    let (cluster, mount_point) = (cluster(path), mount_point(path));
    let by_hand = || format!("to clean up by hand: `{}`", how_to_remove(path));
    if cluster.exists() {
        say.command("ff2ctl down --purge");
        let own = Own::new(&cluster, Stop::default())?;
        own.run(&["down", "--purge"], say.is_quiet()).with_context(by_hand)?;
    }
    let running = daemons_below(path)?;
    ensure!(running.is_empty(), "processes {running:?} still run; {}", by_hand());
    ensure!(
        mount::state(&mount_point) == MountState::Free,
        "{} is still mounted; {}",
        mount_point.display(),
        by_hand()
    );
    let remove = || {
        missing_is_fine(fs::remove_dir(&mount_point))?;
        missing_is_fine(fs::remove_dir_all(&cluster))?;
        missing_is_fine(fs::remove_dir_all(python(path)))?;
        missing_is_fine(fs::remove_file(path.join(LOCK)))?;
        fs::remove_dir(path)
    };
    remove().with_context(|| format!("remove {}", path.display()))
}

fn missing_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Processes of ours that were started with something below `path`.
fn daemons_below(path: &Path) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // A process may end while it is looked at.
        if let (Some(pid), Ok(line)) = (pid, fs::read(entry.path().join("cmdline")))
            && is_daemon_below(&line, path)
        {
            found.push(pid);
        }
    }
    Ok(found)
}

/// `line` as in `/proc/PID/cmdline`: words that end with a zero byte.
fn is_daemon_below(line: &[u8], path: &Path) -> bool {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split('\0').map(Path::new);
    let program = words.next().and_then(Path::file_name).and_then(|name| name.to_str());
    program.is_some_and(|name| DAEMONS.contains(&name)) && words.any(|word| word.starts_with(path))
}

/// Told before anything is started, rather than by a server's log.
fn check_disk(path: &Path, input_bytes: u64) -> Result<()> {
    let probe = path.join("probe");
    let mut options = OpenOptions::new();
    options.write(true).create(true).custom_flags(OFlags::DIRECT.bits().cast_signed());
    let opened = options.open(&probe);
    // Where direct I/O is refused, the file may have been made all the same.
    missing_is_fine(fs::remove_file(&probe)).context("remove a probe file")?;
    opened.with_context(|| {
        format!("{} has no direct I/O: name a folder on a disk with --folder", path.display())
    })?;
    let space = rustix::fs::statvfs(path).context("ask for the free space")?;
    let (free, needed) =
        (space.f_bavail * space.f_frsize, input_bytes.saturating_mul(COPIES).max(SPACE_MIN));
    ensure!(
        free >= needed,
        "{} has {} free, the demo needs {}: name a folder on another disk with --folder, or copy \
         less with --files-max",
        path.display(),
        HumanBytes(free),
        HumanBytes(needed)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_killed_demos_folder_is_taken() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (path, say) = (dir.path().join("demo"), Say::new(true));
        let running = Folder::claim(&path, 0, say).unwrap();
        let refusal = Folder::claim(&path, 0, say).unwrap_err().to_string();
        assert!(refusal.contains("a demo runs in"), "{refusal}");

        // Killed: the lock is free, the folder is left.
        drop(running);
        let next = Folder::claim(&path, 0, say).unwrap();

        // Kept: nobody's leftover.
        next.keep().unwrap();
        let refusal = Folder::claim(&path, 0, say).unwrap_err().to_string();
        assert!(refusal.contains("down --purge"), "{refusal}");
        assert!(path.exists());
    }

    #[test]
    fn nothing_but_the_demos_own_is_removed() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("demo");
        let folder = Folder::claim(&path, 0, Say::new(true)).unwrap();
        fs::create_dir(folder.mount()).unwrap();
        let mine = folder.mount().join("mine");
        fs::write(&mine, "x").unwrap();
        folder.remove().unwrap_err();
        assert!(mine.exists());
    }

    #[test]
    fn too_small_a_disk_leaves_nothing() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("demo");
        let refusal = Folder::claim(&path, u64::MAX, Say::new(true)).unwrap_err().to_string();
        assert!(refusal.contains("--files-max"), "{refusal}");
        assert!(!path.exists());
    }

    #[test]
    fn daemons_are_told_from_strangers() {
        let path = Path::new("/d/demo");
        let ours = b"/b/ff2-metad\0--config\0/d/demo/cluster/metad-0/metad.toml\0run\0";
        assert!(is_daemon_below(ours, path));
        assert!(!is_daemon_below(b"/b/ff2-metad\0--config\0/d/demo2/metad.toml\0", path));
        assert!(!is_daemon_below(b"/b/ff2ctl\0demo\0--folder\0/d/demo\0", path));
        assert!(!is_daemon_below(b"", path));
    }
}
