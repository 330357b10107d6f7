//! CPU seconds of the cluster's processes, its mounts, and this program.

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

    fn cpu_s(&self) -> Result<BTreeMap<String, f64>> {
        let mut sums = BTreeMap::new();
        for (role, pid) in &self.0 {
            // A process that ended in between cannot be counted: the cluster must not change.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
                .with_context(|| format!("read the CPU time of process {pid}"))?;
            let ticks = parse(&stat).with_context(|| format!("parse /proc/{pid}/stat"))?;
            *sums.entry(role.clone()).or_insert(0.0) += ticks as f64 / TICKS_PER_S;
        }
        Ok(sums)
    }
}

/// Counts from its creation.
pub(super) struct Meter<'a> {
    processes: &'a Processes,
    cpu_s: BTreeMap<String, f64>,
    started: Instant,
}

/// Wall time, and CPU time by role, of a piece of work.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    pub(super) wall_s: f64,
    pub(super) cpu_s: BTreeMap<String, f64>,
}

impl<'a> Meter<'a> {
    pub(super) fn start(processes: &'a Processes) -> Result<Self> {
        Ok(Self { processes, cpu_s: processes.cpu_s()?, started: Instant::now() })
    }

    pub(super) fn stop(self) -> Result<Cost> {
        let wall_s = self.started.elapsed().as_secs_f64();
        let mut cpu_s = self.processes.cpu_s()?;
        for (role, sum) in &mut cpu_s {
            *sum -= self.cpu_s.get(role).copied().unwrap_or_default();
        }
        Ok(Cost { wall_s, cpu_s })
    }
}

/// User and system ticks: fields 14 and 15; the name in field 2 may hold spaces and parentheses.
fn parse(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_may_be_odd() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 5 0 100";
        assert_eq!(super::parse(stat), Some(42));
        assert_eq!(super::parse("nothing"), None);
    }
}
