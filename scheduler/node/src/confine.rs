//! The control group around the processes of one run.
//!
//! Whoever starts a run makes a [`Confinement`] and lets the first process begin inside
//! ([`Confinement::confine`]); all that descends from it is inside too, and cannot leave unless it is root's. It is
//! ended by [`Confinement::kill`] and removed when it [is empty](Confinement::is_empty). All of it is kept by the
//! kernel under a name, so another process may go on later ([`Confinement::open`]).
//!
//! When the memory is over, the kernel kills the run as a whole, since half a gang is of no use; also a keeper
//! that is inside. [`Confinement::events`] tells so afterwards.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Pid;

use crate::{Delegation, GpuGuard, cgroup::keyed, limits};

/// The time over which a share of the processor is measured, in microseconds: the kernel's own choice. A run that
/// used its share up waits for the rest of it.
const CPU_PERIOD_US: u64 = 100_000;

/// What the processes of a run may use together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time of so many cores; which ones is the kernel's business. The largest number: as much as there is.
    pub cpus: u32,
    /// Memory in MiB, with the page cache of files that they read, which is given up first. No swap.
    pub memory_mib: u64,
    /// Processes and threads: [`limits::PIDS`] is generous.
    pub pids: u32,
    /// Which GPUs they may open; `None` on a node without real ones.
    pub gpus: Option<GpuGuard>,
}

/// What the kernel has done to a run since its group was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Processes that were killed because the run's memory was over.
    pub oom_kill: u64,
    /// Processes or threads that could not be made because there were too many.
    pub pids_max: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    folder: PathBuf,
}

impl Confinement {
    /// Makes the group of this name (letters, digits, `-`, `_` and `.`), with nothing inside.
    ///
    /// # Errors
    /// The name cannot be one, is taken ([`io::ErrorKind::AlreadyExists`]), or the kernel refuses a limit. Nothing
    /// is left then.
    pub fn create(delegation: &Delegation, name: &str, limits: &Limits) -> io::Result<Self> {
        let folder = folder(delegation, name)?;
        fs::create_dir(&folder)?;
        let confinement = Self { folder };
        if let Err(error) = confinement.limit(limits) {
            confinement.remove()?;
            return Err(error);
        }
        Ok(confinement)
    }

    /// The group of this name, if there is one.
    ///
    /// # Errors
    /// The name cannot be one.
    pub fn open(delegation: &Delegation, name: &str) -> io::Result<Option<Self>> {
        let folder = folder(delegation, name)?;
        Ok(folder.is_dir().then_some(Self { folder }))
    }

    fn limit(&self, limits: &Limits) -> io::Result<()> {
        let bytes = limits.memory_mib.saturating_mul(1 << 20);
        self.set("cpu.max", &cpu_max(limits.cpus))?;
        self.set("memory.max", &bytes.to_string())?;
        self.set("memory.oom.group", "1")?;
        self.set("pids.max", &limits.pids.to_string())?;
        // Not there in kernels that count no swap.
        if self.folder.join("memory.swap.max").exists() {
            self.set("memory.swap.max", "0")?;
        }
        match &limits.gpus {
            Some(guard) => {
                let group = fs::File::open(&self.folder)?;
                guard.attach(group.as_fd()).map_err(|error| said("guard the GPUs", &error))
            }
            None => Ok(()),
        }
    }

    /// The command's process will begin inside: no moment in which it could start others outside.
    ///
    /// # Errors
    /// The group is gone.
    pub fn confine(&self, command: &mut Command) -> io::Result<()> {
        let processes =
            fs::OpenOptions::new().write(true).open(self.folder.join("cgroup.procs"))?;
        let processes = OwnedFd::from(processes);
        // SAFETY: one write to an open file, which is async-signal-safe, and nothing else happens between fork and
        // exec.
        unsafe {
            command.pre_exec(move || {
                // Zero stands for who writes.
                rustix::io::write(&processes, b"0")?;
                Ok(())
            });
        }
        Ok(())
    }

    /// Moves a process inside; not what it started before.
    ///
    /// # Errors
    /// The process or the group is gone.
    pub fn enter(&self, pid: Pid) -> io::Result<()> {
        self.set("cgroup.procs", &pid.as_raw_nonzero().to_string())
    }

    /// All processes inside, also in groups that these made below.
    ///
    /// # Errors
    /// The group is gone.
    pub fn procs(&self) -> io::Result<Vec<i32>> {
        let mut found = Vec::new();
        each_below(&self.folder, limits::DEPTH_MAX, &mut |folder| {
            let text = fs::read_to_string(folder.join("cgroup.procs"))?;
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            Ok(())
        })?;
        found.sort_unstable();
        Ok(found)
    }

    /// Whether no process is left inside; one that ended and was not waited for yet is none.
    ///
    /// # Errors
    /// The group is gone.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(keyed(&self.get("cgroup.events")?, "populated") == Some(0))
    }

    /// Kills all that is inside, those too that are just being made. They are gone a little later, unless they
    /// hang in the kernel.
    ///
    /// # Errors
    /// The group is gone.
    pub fn kill(&self) -> io::Result<()> {
        self.set("cgroup.kill", "1")
    }

    /// # Errors
    /// The group is gone.
    pub fn events(&self) -> io::Result<Events> {
        Ok(Events {
            oom_kill: keyed(&self.get("memory.events")?, "oom_kill").unwrap_or(0),
            pids_max: keyed(&self.get("pids.events")?, "max").unwrap_or(0),
        })
    }

    /// Removes the group, with those that tasks may have made below. What it was guarded by goes with it.
    ///
    /// # Errors
    /// Processes are left inside ([`io::ErrorKind::ResourceBusy`]), or it is gone.
    pub fn remove(self) -> io::Result<()> {
        each_below(&self.folder, limits::DEPTH_MAX, &mut |folder| fs::remove_dir(folder))
    }

    fn get(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.folder.join(name))
            .map_err(|error| said(&format!("read {name}"), &error))
    }

    fn set(&self, name: &str, value: &str) -> io::Result<()> {
        let path = self.folder.join(name);
        let open = fs::OpenOptions::new().write(true).open(path);
        let written = open.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
        written.map_err(|error| said(&format!("write {value} to {name}"), &error))
    }
}

/// The same error, with what was tried.
fn said(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

fn cpu_max(cpus: u32) -> String {
    match cpus {
        u32::MAX => format!("max {CPU_PERIOD_US}"),
        cpus => format!("{} {CPU_PERIOD_US}", u64::from(cpus) * CPU_PERIOD_US),
    }
}

fn folder(delegation: &Delegation, name: &str) -> io::Result<PathBuf> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = (1..=limits::NAME_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(is_plain);
    if !is_name {
        let why = format!("{name:?} cannot be the name of a confinement");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(delegation.folder().join(name))
}

/// Children before their parents.
fn each_below(
    folder: &Path,
    depth: usize,
    act: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::other("control groups are nested too deeply"));
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            each_below(&entry.path(), depth - 1, act)?;
        }
    }
    act(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_time_in_a_period() {
        assert_eq!(cpu_max(3), "300000 100000");
        assert_eq!(cpu_max(u32::MAX), "max 100000");
    }
}
