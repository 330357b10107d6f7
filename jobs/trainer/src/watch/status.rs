//! What a job says of itself (docs/JOBS.md): a line, and the curve of its losses, which the scheduler's page draws.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Record,
    curve::{losses, thin},
};

/// Between two times: who looks sees no more, and the file may lie on a mount.
const PERIOD: Duration = Duration::from_secs(1);
/// Of a line, at most: the picture is small.
const POINTS_MAX: usize = 100;

#[derive(Debug)]
pub(super) struct Status {
    path: PathBuf,
    /// Of the whole run.
    steps: u64,
    told: Option<Instant>,
}

impl Status {
    /// None outside of jobs.
    pub(super) fn of_job(steps: u64) -> Option<Self> {
        let path = PathBuf::from(env::var_os("FF2_STATUS")?);
        Some(Self { path, steps, told: None })
    }

    /// `records` are all steps up to now, `line` is of the last one.
    pub(super) fn step(&mut self, line: &str, records: &[Record]) {
        if self.told.is_some_and(|told| told.elapsed() < PERIOD) {
            return;
        }
        self.told = Some(Instant::now());
        // It is shown and no more: the next second has another one.
        let _ = replace(&self.path, &format!("{line}\n{}\n", chart(records, self.steps)));
    }
}

fn chart(records: &[Record], steps: u64) -> Value {
    let (training, heldout) = losses(records);
    let line = |name: &str, points: &[(f64, f64)]| {
        let points = thin(points, POINTS_MAX);
        // Digits that nobody sees would only be carried.
        let point = |(step, loss): (f64, f64)| json!([step.round(), (loss * 1e4).round() / 1e4]);
        json!({ "name": name, "points": points.into_iter().map(point).collect::<Vec<_>>() })
    };
    json!({
        "x": "step",
        "until": steps,
        "lines": [line("loss", &training), line("held out", &heldout)],
    })
}

/// Whole or not at all.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::{run::Score, watch::record::example};

    #[test]
    fn a_long_run_is_a_line_and_a_small_chart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status");
        let mut status = Status { path: path.clone(), steps: 200_000, told: None };
        let mut records: Vec<_> = (1..=100_000).map(example).collect();
        let score = Score { loss: 1.5, bits_per_byte: 0.75 };
        records.iter_mut().step_by(10_000).for_each(|record| record.heldout = Some(score));
        records[500].loss = None;
        status.step("step 100000/200000", &records);
        status.step("too soon", &records);
        let text = fs::read_to_string(&path).unwrap();
        let (line, chart) = text.split_once('\n').unwrap();
        assert_eq!(line, "step 100000/200000");
        // An agent reads no more.
        assert!(text.len() < 4 << 10, "{}", text.len());
        let chart: Value = serde_json::from_str(chart).unwrap();
        assert_eq!((&chart["x"], &chart["until"]), (&json!("step"), &json!(200_000)));
        let points = |at: usize| chart["lines"][at]["points"].as_array().unwrap().clone();
        assert!((90..=POINTS_MAX).contains(&points(0).len()), "{}", points(0).len());
        assert_eq!(points(1)[1], json!([10_001.0, 1.5]));
        assert!(!folder.path().join("status.new").exists());
    }
}
