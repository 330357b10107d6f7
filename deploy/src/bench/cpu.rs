//! CPU seconds of the cluster's processes, its mounts, and this program.

use std::{fs, time::Instant};

use anyhow::{Context, Result};

use crate::own::Own;

/// Unit of times in `/proc/PID/stat` (USER_HZ): part of Linux's interface, whatever the kernel's own tick.
const TICKS_PER_S: f64 = 100.0;

/// Counts from its creation.
pub(super) struct Meter {
    pids: Vec<u64>,
    cpu_s: f64,
    started: Instant,
}

/// Wall time and CPU time of a piece of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) wall_s: f64,
    pub(super) cpu_s: f64,
}

impl Meter {
    pub(super) fn start(own: &Own) -> Result<Self> {
        let ps = own.json(&["ps"])?;
        let processes = ps.as_array().or_else(|| ps["processes"].as_array());
        let mut pids: Vec<u64> = processes
            .context("ps prints a list")?
            .iter()
            .filter_map(|process| process["pid"].as_u64())
            .collect();
        pids.push(u64::from(std::process::id()));
        let cpu_s = total(&pids)?;
        Ok(Self { pids, cpu_s, started: Instant::now() })
    }

    pub(super) fn stop(self) -> Result<Cost> {
        let wall_s = self.started.elapsed().as_secs_f64();
        Ok(Cost { wall_s, cpu_s: total(&self.pids)? - self.cpu_s })
    }
}

fn total(pids: &[u64]) -> Result<f64> {
    let mut ticks = 0;
    for pid in pids {
        // A process that ended in between is missing from the second sum: the cluster must not change.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("read the CPU time of process {pid}"))?;
        ticks += parse(&stat).with_context(|| format!("parse /proc/{pid}/stat"))?;
    }
    Ok(ticks as f64 / TICKS_PER_S)
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
