//! What was measured, for programs and for people.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::super::rounded;
use crate::{
    bytes::ByteSize,
    output::{Output, table},
};

/// How fast bytes moved, and what a GiB of them cost.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Rate {
    pub(super) mib_per_s: f64,
    /// CPU seconds, user and system, by who used them.
    cpu_s_per_gib: BTreeMap<String, f64>,
    #[serde(skip)]
    gib: f64,
}

/// One size by one transport, one way.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) transport: &'static str,
    pub(super) side: &'static str,
    /// Of a call.
    pub(super) bytes: u64,
    #[serde(flatten)]
    pub(super) ours: Rate,
    /// Of calls that follow each other.
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) beside: Option<Beside>,
}

/// Another program's figures, taken in turn with ours.
#[derive(Debug, Serialize)]
pub(super) struct Beside {
    program: &'static str,
    #[serde(flatten)]
    rate: Rate,
    /// Ours, as a share of its.
    ratio: f64,
}

/// Who moved bytes without being a program that was started for it.
const REST: &str = "rest of the machine";

impl Rate {
    pub(super) fn of(bytes: u64, wall_s: f64, cpu_s: BTreeMap<String, f64>) -> Self {
        Self::moving(bytes, bytes as f64 / f64::from(1 << 20) / wall_s, cpu_s)
    }

    /// As a program says of itself.
    pub(super) fn moving(bytes: u64, mib_per_s: f64, cpu_s: BTreeMap<String, f64>) -> Self {
        let gib = bytes.max(1) as f64 / f64::from(1 << 30);
        let cpu_s_per_gib = cpu_s.into_iter().map(|(who, s)| (who, s / gib)).collect();
        Self { mib_per_s, cpu_s_per_gib, gib }
    }

    /// With what the machine did in that time beside who is counted already.
    pub(super) fn with_rest(mut self, machine_s: f64) -> Self {
        let rest = machine_s / self.gib - self.cpu_s_per_gib.values().sum::<f64>();
        // Both are read in ticks, one after the other.
        self.cpu_s_per_gib.insert(REST.into(), rest.max(0.0));
        self
    }

    /// The median of each figure.
    pub(super) fn middle(rates: Vec<Self>) -> Self {
        let of = |figure: &dyn Fn(&Self) -> f64| {
            let mut figures: Vec<f64> = rates.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let who = rates[0].cpu_s_per_gib.keys();
        Self {
            mib_per_s: of(&|rate| rate.mib_per_s),
            cpu_s_per_gib: who
                .map(|who| (who.clone(), of(&|rate| rate.cpu_s_per_gib[who])))
                .collect(),
            gib: of(&|rate| rate.gib),
        }
    }

    fn cpu_text(&self) -> String {
        let total: f64 = self.cpu_s_per_gib.values().sum();
        let parts: Vec<String> =
            self.cpu_s_per_gib.iter().map(|(who, s)| format!("{who} {}", rounded(*s))).collect();
        format!("{} ({})", rounded(total), parts.join(", "))
    }
}

impl Beside {
    pub(super) fn new(program: &'static str, rate: Rate, ours: &Rate) -> Self {
        Self { program, ratio: ours.mib_per_s / rate.mib_per_s, rate }
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let name = format!("{} {} {}", self.transport, ByteSize(self.bytes), self.side);
        let mut cells = vec![name, rounded(self.ours.mib_per_s), self.ours.cpu_text()];
        cells.extend([self.p50_us, self.p99_us].map(rounded));
        match &self.beside {
            None => cells.extend([const { String::new() }; 4]),
            Some(Beside { program, rate, ratio }) => cells.extend([
                (*program).to_owned(),
                rounded(rate.mib_per_s),
                rate.cpu_text(),
                rounded(*ratio),
            ]),
        }
        cells
    }
}

const HEAD: [&str; 9] =
    ["CALLS", "MIB/S", "CPU S/GIB", "P50 US", "P99 US", "BESIDE", "MIB/S", "CPU S/GIB", "RATIO"];

pub(super) fn print(rows: &[Row], output: Output) -> Result<()> {
    output.print(&json!(rows), || table(&HEAD, rows.iter().map(Row::cells)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(mib_per_s: f64, server_s: f64) -> Rate {
        Rate::moving(2 << 30, mib_per_s, BTreeMap::from([("server".into(), server_s)]))
    }

    #[test]
    fn the_middle_of_each_figure_counts() {
        let middle = Rate::middle(vec![rate(10.0, 8.0), rate(30.0, 4.0), rate(20.0, 6.0)]);
        assert!((middle.mib_per_s - 20.0).abs() < 1e-9);
        assert_eq!(middle.cpu_text(), "3.00 (server 3.00)");
    }

    #[test]
    fn what_the_machine_did_beside_the_programs_is_told() {
        assert_eq!(
            rate(10.0, 2.0).with_rest(5.0).cpu_text(),
            "2.50 (rest of the machine 1.50, server 1.00)"
        );
        assert_eq!(
            rate(10.0, 2.0).with_rest(1.9).cpu_text(),
            "1.00 (rest of the machine 0.00, server 1.00)"
        );
    }

    #[test]
    fn programs_read_what_people_see() {
        let ours = rate(90.0, 2.0);
        let beside = Some(Beside::new("iperf3", rate(100.0, 4.0), &ours));
        let (p50_us, p99_us) = (5.0, 9.0);
        let (transport, side, bytes) = ("tcp", "read", 1 << 20);
        let row = Row { transport, side, bytes, ours, p50_us, p99_us, beside };
        assert_eq!(
            row.cells(),
            ["tcp 1 MiB read", "90.0", "1.00 (server 1.00)", "5.00", "9.00", "iperf3", "100"]
                .into_iter()
                .chain(["2.00 (server 2.00)", "0.90"])
                .collect::<Vec<_>>()
        );
        assert_eq!(
            json!(row),
            json!({
                "transport": "tcp", "side": "read", "bytes": 1_048_576, "mib_per_s": 90.0,
                "cpu_s_per_gib": { "server": 1.0 }, "p50_us": 5.0, "p99_us": 9.0,
                "beside": {
                    "program": "iperf3", "mib_per_s": 100.0, "cpu_s_per_gib": { "server": 2.0 },
                    "ratio": 0.9,
                },
            })
        );
    }
}
