//! What to think of a figure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Check, Verdict};

/// Beyond `suspect` a figure is suspect, beyond `failed` the node has failed. Whether beyond is above or below
/// depends on the figure; on the bound is within.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    pub suspect: f64,
    pub failed: f64,
}

/// What figures are compared with. The defaults are for any machine of a cluster; who knows the hardware sets more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Rates, as parts of the peers' median; for latencies the median is divided by it. 0.8 and 0.5.
    pub of_peers: Bound,
    /// The slowest core's rate as a part of the median core's. 0.8 and 0.5.
    pub slowest_core: Bound,
    /// Bandwidth of memory, all cores together, in MiB/s. 2,000 and 500.
    pub memory_mib_s: Bound,
    /// In MiB/s, to write and to read. 50 and 10.
    pub disk_mib_s: Bound,
    /// As for the disk, but in a folder of the cluster's file system. 50 and 10.
    pub file_system_mib_s: Bound,
    /// Between a pair of nodes, in MiB/s, each direction. 100 (a network of 1 Gb/s) and 10.
    pub network_mib_s: Bound,
    /// The median round trip over TCP, in microseconds. 2,000 and 20,000.
    pub network_us: Bound,
    /// Of a GPU without jobs, in degrees Celsius. 80 and 90; failed also where the GPU makes itself slower.
    pub gpu_celsius: Bound,
    /// Pages of a GPU's memory that are out of use. 30 and 60, when NVIDIA exchanges a card.
    pub gpu_retired_pages: Bound,
    /// Lanes of a GPU's link, as a part of what its place has. 1 and 0.75.
    pub gpu_pcie: Bound,
}

impl Default for Limits {
    fn default() -> Self {
        let bound = |suspect, failed| Bound { suspect, failed };
        Self {
            of_peers: bound(0.8, 0.5),
            slowest_core: bound(0.8, 0.5),
            memory_mib_s: bound(2_000.0, 500.0),
            disk_mib_s: bound(50.0, 10.0),
            file_system_mib_s: bound(50.0, 10.0),
            network_mib_s: bound(100.0, 10.0),
            network_us: bound(2_000.0, 20_000.0),
            gpu_celsius: bound(80.0, 90.0),
            gpu_retired_pages: bound(30.0, 60.0),
            gpu_pcie: bound(1.0, 0.75),
        }
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub(crate) struct Measured<'a> {
    pub(crate) name: &'a str,
    pub(crate) figure: f64,
    pub(crate) unit: &'a str,
    /// What a sentence about it begins with.
    pub(crate) what: &'a str,
}

#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    AtLeast,
    AtMost,
}

#[derive(Clone, Debug)]
pub(crate) struct Judge {
    pub(crate) limits: Limits,
    pub(crate) peers: BTreeMap<String, f64>,
}

impl Judge {
    /// More is better. Without a bound only peers tell.
    pub(crate) fn at_least(&self, measured: Measured<'_>, bound: Option<Bound>) -> Check {
        self.judge(measured, bound, Wanted::AtLeast)
    }

    pub(crate) fn at_most(&self, measured: Measured<'_>, bound: Option<Bound>) -> Check {
        self.judge(measured, bound, Wanted::AtMost)
    }

    /// Of faults that must not be at all; peers do not matter.
    pub(crate) fn none_of(&self, measured: Measured<'_>, worst: Verdict) -> Check {
        let Measured { name, figure, unit, what } = measured;
        let is_well = figure == 0.0;
        let why = format!("{what}: {}", if is_well { "none".into() } else { shown(figure, unit) });
        let verdict = if is_well { Verdict::Ok } else { worst };
        let (figure, limit) = (Some(rounded(figure)), Some(0.0));
        Check { name: name.into(), figure, unit: unit.into(), limit, verdict, why }
    }

    fn judge(&self, measured: Measured<'_>, bound: Option<Bound>, wanted: Wanted) -> Check {
        let Measured { name, figure, unit, what } = measured;
        let peers = self.peers.get(name).copied().filter(|median| *median > 0.0);
        let of_peers = peers.map(|median| {
            let scale = |part: f64| match wanted {
                Wanted::AtLeast => median * part,
                Wanted::AtMost => median / part,
            };
            let Bound { suspect, failed } = self.limits.of_peers;
            Bound { suspect: scale(suspect), failed: scale(failed) }
        });
        let candidates = bound.into_iter().chain(of_peers);
        let strictest = candidates.reduce(|one, other| stricter(one, other, wanted));
        let verdict = strictest.map_or(Verdict::Ok, |bound| verdict(figure, bound, wanted));
        let mut why = format!("{what}: {}", shown(figure, unit));
        if let Some(bound) = strictest {
            let word = if wanted == Wanted::AtLeast { "at least" } else { "at most" };
            why += &format!(", {word} {} expected", shown(bound.suspect, unit));
        }
        if let Some(median) = peers {
            why += &format!("; {:.2} times the peers' median", figure / median);
        }
        let (figure, limit) =
            (Some(rounded(figure)), strictest.map(|bound| rounded(bound.suspect)));
        Check { name: name.into(), figure, unit: unit.into(), limit, verdict, why }
    }
}

fn stricter(one: Bound, other: Bound, wanted: Wanted) -> Bound {
    let pick = |a: f64, b: f64| if wanted == Wanted::AtLeast { a.max(b) } else { a.min(b) };
    Bound { suspect: pick(one.suspect, other.suspect), failed: pick(one.failed, other.failed) }
}

fn verdict(figure: f64, bound: Bound, wanted: Wanted) -> Verdict {
    let is_within = |limit: f64| match wanted {
        Wanted::AtLeast => figure >= limit,
        Wanted::AtMost => figure <= limit,
    };
    match (is_within(bound.suspect), is_within(bound.failed)) {
        (true, _) => Verdict::Ok,
        (false, true) => Verdict::Suspect,
        (false, false) => Verdict::Failed,
    }
}

/// More would be noise, and does not survive a way through JSON to the last bit.
fn rounded(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}

/// With three digits or so, as people read them.
fn shown(figure: f64, unit: &str) -> String {
    let digits = if figure.abs() >= 100.0 || figure.fract() == 0.0 { 0 } else { 2 };
    let space = if unit.is_empty() { "" } else { " " };
    format!("{figure:.digits$}{space}{unit}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn judge(peers: &[(&str, f64)]) -> Judge {
        let peers = peers.iter().map(|(name, median)| ((*name).to_owned(), *median)).collect();
        Judge { limits: Limits::default(), peers }
    }

    fn rate(figure: f64) -> Measured<'static> {
        Measured { name: "disk.read", figure, unit: "MiB/s", what: "the disk reads" }
    }

    #[test]
    fn a_slow_disk_fails_by_the_limit() {
        let judge = judge(&[]);
        let verdict = |figure| judge.at_least(rate(figure), Some(judge.limits.disk_mib_s)).verdict;
        assert_eq!(verdict(50.0), Verdict::Ok);
        assert_eq!(verdict(49.9), Verdict::Suspect);
        assert_eq!(verdict(9.9), Verdict::Failed);
    }

    #[test]
    fn who_is_slower_than_its_peers_is_suspect_though_the_limit_is_kept() {
        let judge = judge(&[("disk.read", 3_000.0)]);
        let check = judge.at_least(rate(2_000.0), Some(judge.limits.disk_mib_s));
        assert_eq!((check.verdict, check.limit), (Verdict::Suspect, Some(2_400.0)));
        assert!(check.why.contains("0.67 times"), "{}", check.why);
        assert_eq!(judge.at_least(rate(1_000.0), None).verdict, Verdict::Failed);
        assert_eq!(judge.at_least(rate(2_500.0), None).verdict, Verdict::Ok);
    }

    #[test]
    fn slow_peers_excuse_nobody_from_the_limit() {
        let judge = judge(&[("disk.read", 5.0)]);
        let check = judge.at_least(rate(6.0), Some(judge.limits.disk_mib_s));
        assert_eq!(check.verdict, Verdict::Failed);
    }

    #[test]
    fn of_latencies_less_is_better() {
        let judge = judge(&[("network.latency", 40.0)]);
        let latency =
            |figure| Measured { name: "network.latency", figure, unit: "us", what: "a trip takes" };
        assert_eq!(judge.at_most(latency(50.0), None).verdict, Verdict::Ok);
        assert_eq!(judge.at_most(latency(60.0), None).verdict, Verdict::Suspect);
        assert_eq!(judge.at_most(latency(81.0), None).verdict, Verdict::Failed);
    }

    #[test]
    fn without_anything_to_compare_a_figure_is_only_told() {
        let check = judge(&[]).at_least(rate(1.0), None);
        assert_eq!((check.verdict, check.limit, check.figure), (Verdict::Ok, None, Some(1.0)));
        assert_eq!(check.why, "the disk reads: 1 MiB/s");
    }
}
