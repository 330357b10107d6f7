//! Programs that move bytes and do nothing else, to hold our figures against.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ff2_fabric::rdma::Subnet;
use ff2_verbs::Place;
use serde_json::Value;

use super::{
    super::{cpu, tell},
    Side, Transport,
    report::Rate,
};
use crate::stop::Stop;

const LOOPBACK: &str = "127.0.0.1";
/// What ours needs, they need for their start.
const START_MAX: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);
/// They are compared where bytes cost more than calls.
const LEAST_BYTES: u64 = 1 << 20;
const PORT: u16 = 18_515;

#[derive(Clone, Debug)]
pub(super) enum Program {
    Iperf3,
    /// Of perftest: the same verb from the same place.
    Perftest {
        name: &'static str,
        place: Place,
        bytes: u64,
    },
}

impl Program {
    /// What compares with this; `None`: nothing, or it is not installed.
    pub(super) fn of(transport: Transport, side: Side, bytes: u64, subnet: Subnet) -> Option<Self> {
        if bytes < LEAST_BYTES {
            return None;
        }
        let program = match (transport, side) {
            // It knows one direction: from the client to the server.
            (Transport::Tcp, _) => Self::Iperf3,
            (Transport::Shm, _) => return None,
            (Transport::Rdma, side) => {
                let places = ff2_verbs::place::all().ok()?;
                let place = (*ff2_verbs::place::within(&places, &[subnet]).first()?).clone();
                // Of the server, which does both.
                let name = if side == Side::Read { "ib_write_bw" } else { "ib_read_bw" };
                Self::Perftest { name, place, bytes }
            }
        };
        if !found(program.name()) {
            tell(&format!("without {}, which is not installed", program.name()));
            return None;
        }
        Some(program)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Iperf3 => "iperf3",
            Self::Perftest { name, .. } => name,
        }
    }

    /// One run of about so many seconds, if it moves about as many MiB a second as ours.
    pub(super) fn run(&self, mib_per_s: f64, seconds: usize, stop: &Stop) -> Result<Rate> {
        let before = cpu::of_ended_s()?;
        let (bytes, mib_per_s) = self.moved(mib_per_s, seconds, stop)?;
        let both_ends_s = cpu::of_ended_s()? - before;
        Ok(Rate::moving(bytes, mib_per_s, BTreeMap::from([(self.name().to_owned(), both_ends_s)])))
    }

    /// Bytes, and MiB a second.
    fn moved(&self, mib_per_s: f64, seconds: usize, stop: &Stop) -> Result<(u64, f64)> {
        let (server, client) = self.commands(mib_per_s, seconds);
        let (mut server, mut client) = (quiet(server), quiet(client));
        let name = self.name();
        let mut serving = Serving(server.spawn().with_context(|| format!("start {name}"))?);
        let end = Instant::now() + START_MAX;
        loop {
            let output = stop.run(client.stdout(Stdio::piped()))?;
            if output.status.success() && !self.failed(&output) {
                serving.0.wait()?;
                return self.read(&output).with_context(|| format!("read the report of {name}"));
            }
            // It may not listen yet.
            ensure!(Instant::now() < end, "{name} does not reach its server");
            std::thread::sleep(PAUSE);
        }
    }

    fn commands(&self, mib_per_s: f64, seconds: usize) -> (Command, Command) {
        let mut commands = [Command::new(self.name()), Command::new(self.name())];
        match self {
            Self::Iperf3 => {
                let port = PORT.to_string();
                commands[0].args(["-s", "-1", "-B", LOOPBACK, "-p", &port]);
                commands[1].args(["-c", LOOPBACK, "-p", &port, "-J", "-t", &seconds.to_string()]);
            }
            Self::Perftest { place, bytes, .. } => {
                let count = mib_per_s * seconds as f64 * f64::from(1 << 20) / *bytes as f64;
                // Fewer than it has on their way at a time say nothing.
                let count = (count as u64).max(64).to_string();
                for command in &mut commands {
                    command.args(["-d", &place.device, "-i", &place.port.to_string()]);
                    command.args(["-x", &place.gid.index.to_string(), "-n", &count]);
                    command.args(["-s", &bytes.to_string(), "-p", &PORT.to_string(), "-F"]);
                }
                commands[1].arg(LOOPBACK);
            }
        }
        commands.into()
    }

    /// Whose exit status does not tell, as iperf3's when it writes JSON.
    fn failed(&self, output: &Output) -> bool {
        let report = || serde_json::from_slice::<Value>(&output.stdout);
        matches!(self, Self::Iperf3) && report().is_ok_and(|report| report.get("error").is_some())
    }

    /// Bytes, and MiB a second.
    fn read(&self, output: &Output) -> Result<(u64, f64)> {
        match self {
            Self::Iperf3 => {
                let report: Value = serde_json::from_slice(&output.stdout)?;
                let sum = &report["end"]["sum_received"];
                let bytes = sum["bytes"].as_u64().context("no bytes")?;
                let bits_per_s = sum["bits_per_second"].as_f64().context("no bits per second")?;
                Ok((bytes, bits_per_s / 8.0 / f64::from(1 << 20)))
            }
            Self::Perftest { bytes, .. } => {
                let text = String::from_utf8_lossy(&output.stdout);
                average(&text, *bytes).with_context(|| format!("no average in {text}"))
            }
        }
    }
}

/// Of perftest's table: bytes, iterations, peak, average (MiB a second, though it says MB).
fn average(text: &str, bytes: u64) -> Option<(u64, f64)> {
    let first = bytes.to_string();
    let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words.first() == Some(&first.as_str()) && words.len() >= 4)?;
    Some((bytes * line[1].parse::<u64>().ok()?, line[3].parse().ok()?))
}

fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn found(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder: PathBuf| folder.join(name)).any(|at| at.is_file())
}

/// Does not outlive a run that fails.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_average_is_read_from_perftests_table() {
        let text = " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n \
                     1048576    64               33.25              31.50   \t\t    0.000032\n";
        assert_eq!(super::average(text, 1 << 20), Some((64 << 20, 31.5)));
        assert_eq!(super::average(text, 1 << 19), None);
        assert_eq!(super::average("Couldn't connect", 1 << 20), None);
    }
}
