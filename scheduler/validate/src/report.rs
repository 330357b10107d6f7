//! What came of a validation.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::Depth;

/// From the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    /// Nothing is known; `why` says for what reason.
    NotTried,
    /// Worse than it should be: look again, or at the peers.
    Suspect,
    /// No job should run here.
    Failed,
}

/// One figure and what to think of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Part and figure, as `disk.write`: the same on all nodes, so that they can be compared.
    pub name: String,
    pub figure: Option<f64>,
    /// Empty for a ratio.
    pub unit: String,
    /// Where suspicion begins; a figure on it is well.
    pub limit: Option<f64>,
    pub verdict: Verdict,
    /// One sentence.
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub hostname: String,
    /// Unix time in seconds.
    pub begun_s: u64,
    pub took_ms: u64,
    pub depth: Depth,
    /// The worst of the checks; `Ok` if some could not be tried but no other is worse, `NotTried` if none was.
    pub verdict: Verdict,
    pub checks: Vec<Check>,
}

impl Check {
    pub(crate) fn not_tried(name: &str, why: impl Into<String>) -> Self {
        Self::without_figure(name, Verdict::NotTried, why)
    }

    /// Something went so wrong that there is nothing to measure.
    pub(crate) fn without_figure(name: &str, verdict: Verdict, why: impl Into<String>) -> Self {
        let (name, why) = (name.into(), why.into());
        Self { name, figure: None, unit: String::new(), limit: None, verdict, why }
    }
}

impl Report {
    /// What must not be overlooked, for the reason of a drain; empty for a node that is well.
    pub fn reasons(&self) -> Vec<&str> {
        let worst = self.checks.iter().filter(|check| check.verdict >= Verdict::Suspect);
        worst.map(|check| check.why.as_str()).collect()
    }
}

/// The verdict over all checks.
pub(crate) fn overall(checks: &[Check]) -> Verdict {
    let tried = checks.iter().map(|check| check.verdict).filter(|one| *one != Verdict::NotTried);
    tried.max().unwrap_or(Verdict::NotTried)
}

/// The median of each figure over these reports, for [`Plan::peers`](crate::Plan::peers). Of an even number it is
/// the higher one of the two in the middle. Give reports of nodes of one kind; a figure of fewer than three has none.
pub fn medians(reports: &[Report]) -> BTreeMap<String, f64> {
    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for check in reports.iter().flat_map(|report| &report.checks) {
        if let Some(figure) = check.figure {
            figures.entry(&check.name).or_default().push(figure);
        }
    }
    let enough = figures.into_iter().filter(|(_, figures)| figures.len() >= 3);
    enough.filter_map(|(name, figures)| Some((name.to_owned(), median(figures)?))).collect()
}

/// As in [`medians`].
pub(crate) fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::NotTried => "not tried",
            Self::Suspect => "suspect",
            Self::Failed => "failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(figures: &[(&str, f64)]) -> Report {
        let checks = figures.iter().map(|(name, figure)| Check {
            figure: Some(*figure),
            ..Check::without_figure(name, Verdict::Ok, "")
        });
        Report {
            hostname: "n".into(),
            begun_s: 0,
            took_ms: 0,
            depth: Depth::Quick,
            verdict: Verdict::Ok,
            checks: checks.collect(),
        }
    }

    #[test]
    fn peers_are_compared_by_their_medians() {
        let reports = [
            report(&[("disk.read", 10.0), ("gpu.count", 8.0)]),
            report(&[("disk.read", 1_000.0)]),
            report(&[("disk.read", 900.0)]),
        ];
        let medians = medians(&reports);
        assert_eq!(medians.get("disk.read"), Some(&900.0));
        assert_eq!(medians.get("gpu.count"), None, "one node is no measure");
    }

    #[test]
    fn of_two_the_higher_one_is_the_measure() {
        assert_eq!(median(vec![2.0, 1.0]), Some(2.0));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn what_was_not_tried_hides_no_fault_and_makes_none() {
        let check = |verdict| Check::without_figure("a", verdict, "");
        assert_eq!(overall(&[check(Verdict::Ok), check(Verdict::NotTried)]), Verdict::Ok);
        assert_eq!(overall(&[check(Verdict::NotTried)]), Verdict::NotTried);
        let all = [Verdict::Suspect, Verdict::NotTried, Verdict::Failed, Verdict::Ok].map(check);
        assert_eq!(overall(&all), Verdict::Failed);
    }

    #[test]
    fn reports_travel_as_json() {
        let report = report(&[("disk.read", 10.5)]);
        let text = serde_json::to_string(&report).unwrap();
        assert!(
            text.contains(r#""verdict":"ok""#) && text.contains(r#""depth":"quick""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
