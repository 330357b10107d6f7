//! What a machine has for tasks, as far as this process may use it.

use std::{fs, io, thread};

use rustix::thread::CpuSet;
use serde::{Deserialize, Serialize};

use crate::cgroup::{Place, Tree, keyed};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    pub hostname: String,
    /// The kernel's numbers of the cores that this process may run on.
    pub cores: Vec<u32>,
    /// Of how many cores it has the time: fewer than `cores` where a quota says so.
    pub cpus: u32,
    /// In MiB: all of the machine's, or what the control group of this process is limited to.
    pub memory_mib: u64,
    /// In MiB: what could be had just now without swapping, by the kernel's estimate.
    pub memory_available_mib: u64,
}

impl Hardware {
    /// # Errors
    /// `/proc` is not there or not as Linux has it.
    pub fn look() -> io::Result<Self> {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let may_run = rustix::thread::sched_getaffinity(None)?;
        let cores = (0..CpuSet::MAX_CPU).filter(|core| may_run.is_set(*core));
        let memory = fs::read_to_string("/proc/meminfo")?;
        let total = meminfo_mib(&memory, "MemTotal")?;
        let limit = memory_limit_mib(&Place::look()?).unwrap_or(total);
        Ok(Self {
            hostname: name,
            cores: cores.map(|core| core as u32).collect(),
            cpus: thread::available_parallelism()?.get() as u32,
            memory_mib: total.min(limit),
            memory_available_mib: meminfo_mib(&memory, "MemAvailable")?.min(limit),
        })
    }
}

fn meminfo_mib(text: &str, key: &str) -> io::Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib >> 10).ok_or_else(|| io::Error::other(format!("/proc/meminfo has no {key}")))
}

/// The smallest limit of this process's own group and those above it.
fn memory_limit_mib(place: &Place) -> Option<u64> {
    let version1 = place.folders(Tree::Version1("memory")).and_then(|folders| {
        keyed(
            &fs::read_to_string(folders.own.join("memory.stat")).ok()?,
            "hierarchical_memory_limit",
        )
    });
    let version2 = place.folders(Tree::Unified).and_then(|folders| {
        let groups = folders.own.ancestors().take_while(|group| group.starts_with(&folders.top));
        let limit = |group| {
            fs::read_to_string(std::path::Path::join(group, "memory.max")).ok()?.trim().parse().ok()
        };
        groups.filter_map(limit).min()
    });
    version1.into_iter().chain(version2).min().map(|bytes: u64| bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let hardware = Hardware::look().unwrap();
        assert!(!hardware.hostname.is_empty());
        assert!(hardware.cpus >= 1 && hardware.cpus as usize <= hardware.cores.len());
        assert!(hardware.memory_available_mib <= hardware.memory_mib, "{hardware:?}");
        assert!(hardware.memory_mib > 64, "{hardware:?}");
    }

    #[test]
    fn who_may_run_on_one_core_has_one() {
        let found = thread::spawn(|| {
            let mut one = CpuSet::new();
            let all = rustix::thread::sched_getaffinity(None).unwrap();
            one.set((0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).unwrap());
            rustix::thread::sched_setaffinity(None, &one).unwrap();
            Hardware::look().unwrap()
        });
        let hardware = found.join().unwrap();
        assert_eq!((hardware.cores.len(), hardware.cpus), (1, 1));
    }

    #[test]
    fn memory_is_told_in_mib() {
        let text = "MemTotal:       24640512 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(meminfo_mib(text, "MemTotal").unwrap(), 24_063);
        assert_eq!(meminfo_mib(text, "MemAvailable").unwrap(), 2);
        assert!(meminfo_mib(text, "Mem").is_err());
    }
}
