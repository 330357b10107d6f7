//! What the cluster's processes, its mounts, and this program use: CPU seconds, memory, writes to disks.

use std::{collections::BTreeMap, fs, time::Instant};

use anyhow::{Context, Result};

use crate::own::Own;

/// Unit of times in `/proc/PID/stat` (USER_HZ): part of Linux's interface, whatever the kernel's own tick.
const TICKS_PER_S: f64 = 100.0;
/// The role of this program.
const BENCH: &str = "bench";

/// Whose CPU counts: roles and pids.
pub(super) struct Processes(Vec<(String, u64)>);

impl Processes {
    /// This program alone.
    pub(super) fn none() -> Self {
        Self(vec![(BENCH.to_owned(), u64::from(std::process::id()))])
    }

    /// This program and one that it started.
    pub(super) fn with(role: &str, pid: u32) -> Self {
        let mut both = Self::none();
        both.0.push((role.to_owned(), pid.into()));
        both
    }

    /// All processes of the cluster, and this program.
    pub(super) fn of_cluster(own: &Own) -> Result<Self> {
        let ps = own.json(&["ps"])?;
        let processes = ps.as_array().context("ps prints a list")?.iter().filter_map(|process| {
            Some((process["role"].as_str()?.to_owned(), process["pid"].as_u64()?))
        });
        let mut all = Self::none();
        all.0.extend(processes);
        Ok(all)
    }

    /// Bytes of memory; what several of them share is counted once.
    pub(super) fn memory(&self) -> Result<BTreeMap<String, u64>> {
        self.sums("smaps_rollup", |text| field(text, "Pss:")?.checked_mul(1024))
    }

    /// Bytes that were given to disks, or will be when the page cache is written back. What this program writes goes
    /// to the mount, which the kernel counts like a disk.
    fn written(&self) -> Result<u64> {
        let by_role = self.sums("io", |text| field(text, "write_bytes:"))?;
        Ok(by_role.iter().filter(|(role, _)| *role != BENCH).map(|(_, bytes)| bytes).sum())
    }

    /// By role, of what each process's file in `/proc` says.
    fn sums(
        &self,
        file: &str,
        parse: impl Fn(&str) -> Option<u64>,
    ) -> Result<BTreeMap<String, u64>> {
        let mut sums = BTreeMap::new();
        for (role, pid) in &self.0 {
            let path = format!("/proc/{pid}/{file}");
            // A process that ended in between cannot be counted: the cluster must not change.
            let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            let value = parse(&text).with_context(|| format!("parse {path}"))?;
            *sums.entry(role.clone()).or_insert(0) += value;
        }
        Ok(sums)
    }

    fn cpu_s(&self) -> Result<BTreeMap<String, f64>> {
        let ticks = self.sums("stat", ticks)?;
        Ok(ticks.into_iter().map(|(role, ticks)| (role, ticks as f64 / TICKS_PER_S)).collect())
    }
}

/// Counts from its creation.
pub(super) struct Meter<'a> {
    processes: &'a Processes,
    cpu_s: BTreeMap<String, f64>,
    written: u64,
    started: Instant,
}

/// Wall time, CPU time by role, and bytes written to disks, of a piece of work.
#[derive(Clone, Debug, Default)]
pub(super) struct Cost {
    pub(super) wall_s: f64,
    pub(super) cpu_s: BTreeMap<String, f64>,
    pub(super) written: u64,
}

impl<'a> Meter<'a> {
    pub(super) fn start(processes: &'a Processes) -> Result<Self> {
        let (cpu_s, written) = (processes.cpu_s()?, processes.written()?);
        Ok(Self { processes, cpu_s, written, started: Instant::now() })
    }

    pub(super) fn stop(self) -> Result<Cost> {
        let wall_s = self.started.elapsed().as_secs_f64();
        let mut cpu_s = self.processes.cpu_s()?;
        for (role, sum) in &mut cpu_s {
            *sum -= self.cpu_s.get(role).copied().unwrap_or_default();
        }
        let written = self.processes.written()?.saturating_sub(self.written);
        Ok(Cost { wall_s, cpu_s, written })
    }
}

/// Of the programs that this one started, waited for, and that ended.
pub(super) fn of_ended_s() -> Result<f64> {
    let ticks = ticks_at(&fs::read_to_string("/proc/self/stat")?, 16);
    Ok(ticks.context("parse /proc/self/stat")? as f64 / TICKS_PER_S)
}

/// Of all that the machine did, its kernel's threads and interrupts too.
pub(super) fn of_machine_s() -> Result<f64> {
    let ticks = busy(&fs::read_to_string("/proc/stat")?).context("parse /proc/stat")?;
    Ok(ticks as f64 / TICKS_PER_S)
}

/// User and system ticks of a process.
fn ticks(stat: &str) -> Option<u64> {
    ticks_at(stat, 14)
}

/// User and system ticks at this field and the next: 14 of the process, 16 of its children that ended (proc(5)). The
/// name in field 2 may hold spaces and parentheses.
fn ticks_at(stat: &str, field: usize) -> Option<u64> {
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let at = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(at(field)? + at(field + 1)?)
}

/// Of the line of all processors: user, nice and system, then idle and waiting, which are not counted, then interrupts
/// of both kinds.
fn busy(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    Some(ticks.get(..3)?.iter().chain(ticks.get(5..7)?).sum())
}

/// The number behind a name that begins a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_are_found_by_name() {
        let text = "a [rollup]\nRss:  99 kB\nPss:   42 kB\nPss_Dirty: 7 kB\n";
        assert_eq!(super::field(text, "Pss:"), Some(42));
        assert_eq!(super::field(text, "Swap:"), None);
    }

    #[test]
    fn names_may_be_odd() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 5 0 100";
        assert_eq!(super::ticks(stat), Some(42));
        assert_eq!(super::ticks("nothing"), None);
        let parent = "7 (a) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 5 2 20 0 5 0 100";
        assert_eq!(super::ticks_at(parent, 16), Some(7));
    }

    #[test]
    fn a_machine_that_waits_is_not_busy() {
        let stat = "cpu  1 2 3 1000 2000 4 5 0 0 0\ncpu0 9 9 9 9 9 9 9 0 0 0\n";
        assert_eq!(super::busy(stat), Some(15));
        assert_eq!(super::busy("cpu  1 2"), None);
    }
}
