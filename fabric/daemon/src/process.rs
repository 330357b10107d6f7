//! What the kernel says about a process: who it is, and what it uses.

use std::{fs, io, str::FromStr};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// Linux reports times to user space in hundredths of a second on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process, beyond doubt: a pid is used again, a pid with its start time is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId {
    pub pid: u32,
    /// Clock ticks from boot to the start of the process.
    pub start: u64,
}

impl ProcessId {
    /// This process.
    pub fn current() -> io::Result<Self> {
        let pid = std::process::id();
        Self::of(pid)?.ok_or_else(|| io::Error::other("/proc does not show this process"))
    }

    /// The process that has this pid now; `None` if there is none, or only a zombie.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(text) => {
                let stat =
                    parse_stat(&text).ok_or_else(|| io::Error::other("odd /proc/PID/stat"))?;
                let ended = matches!(stat.state, 'Z' | 'X');
                Ok((!ended).then_some(Self { pid, start: stat.start }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // The process ended between open and read.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether this very process still runs.
    pub fn is_running(self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == Some(self))
    }
}

struct Stat {
    state: char,
    cpu_ticks: u64,
    start: u64,
}

/// The fields after the command name, which may itself hold spaces and parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // proc(5) counts from 1 with the pid; `state`, field 3, is the first here.
    let number = |field: usize| fields.get(field - 3).and_then(|text| u64::from_str(text).ok());
    Some(Stat {
        state: fields.first()?.chars().next()?,
        cpu_ticks: number(14)? + number(15)?,
        start: number(22)?,
    })
}

/// CPU seconds of this process, user and system.
pub(crate) fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    parse_stat(&text).map_or(0.0, |stat| stat.cpu_ticks as f64 / TICKS_PER_SECOND)
}

/// Resident memory of this process.
pub(crate) fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}

/// Open file descriptors of this process.
pub(crate) fn open_files() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}

/// Reads the figures when metrics are asked for.
#[derive(Debug)]
pub(crate) struct ProcessMetrics {
    started_s: f64,
}

impl ProcessMetrics {
    pub(crate) fn new() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self { started_s: since_epoch.map_or(0.0, |since| since.as_secs_f64()) }
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let cpu = ConstCounter::new(cpu_seconds());
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "CPU time of the process, user and system",
            None,
            cpu.metric_type(),
        )?)?;
        let figures = [
            ("process_resident_bytes", "Resident memory of the process", resident_bytes() as f64),
            ("process_open_files", "Open file descriptors of the process", open_files() as f64),
            ("process_start_seconds", "When the process started, Unix time", self.started_s),
        ];
        for (name, help, value) in figures {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_process_runs_and_uses_something() {
        let me = ProcessId::current().unwrap();
        assert!(me.is_running());
        assert!(
            !ProcessId { start: me.start + 1, ..me }.is_running(),
            "another start, another one"
        );
        assert!(resident_bytes() > 100_000);
        assert!(open_files() >= 3);
    }

    #[test]
    fn a_child_that_ended_does_not_run() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(ProcessId::of(pid).unwrap(), None);
    }

    #[test]
    fn a_command_name_with_parentheses_is_no_trap() {
        let text = "12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0 1 0 4711 0 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.cpu_ticks, stat.start), ('S', 42, 4711));
        for bad in ["", "12 (x", "12 (x) S 1", "12 (x)"] {
            assert!(parse_stat(bad).is_none(), "{bad:?}");
        }
    }
}
