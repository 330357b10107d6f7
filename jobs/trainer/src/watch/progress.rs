//! Lines for who watches: one that changes on a terminal, one in a while elsewhere, or JSON.

use std::io::{IsTerminal, Write, stdout};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::Record;
use crate::{baseline::Comparison, config::RunConfig};

enum Form {
    /// One line at the bottom; the others go above it.
    Terminal(ProgressBar),
    Lines {
        every: u64,
    },
    Json,
}

pub(super) struct Progress {
    form: Form,
    steps: u64,
    /// Mean seconds of the last steps, for the time that is left.
    pace: Option<f64>,
}

impl Progress {
    pub(super) fn new(config: &RunConfig, step: u64, json: bool) -> Self {
        let form = if json {
            Form::Json
        } else if stdout().is_terminal() {
            let bar =
                ProgressBar::with_draw_target(Some(config.steps), ProgressDrawTarget::stdout());
            let style = ProgressStyle::with_template("{bar:16} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_position(step);
            Form::Terminal(bar)
        } else {
            Form::Lines { every: config.show.every }
        };
        Self { form, steps: config.steps, pace: None }
    }

    /// Returns the line that people see of it.
    pub(super) fn step(&mut self, record: &Record) -> String {
        // The newest tenth: a pause is forgotten soon, one slow step does not jump.
        let pace = self.pace.map_or(record.seconds, |pace| 0.9 * pace + 0.1 * record.seconds);
        self.pace = Some(pace);
        let left = self.steps.saturating_sub(record.step);
        let line = line(record, self.steps, left as f64 * pace);
        match &self.form {
            Form::Json => print(&serde_json::to_string(record).expect("plain fields")),
            Form::Terminal(bar) => {
                bar.set_position(record.step);
                bar.set_message(line.clone());
                if record.heldout.is_some() || record.is_bad {
                    bar.println(&line);
                }
            }
            Form::Lines { every } => {
                let is_due = record.step.is_multiple_of(*every) || left == 0;
                if is_due || record.heldout.is_some() || record.is_bad {
                    print(&line);
                }
            }
        }
        line
    }

    pub(super) fn compare(&self, comparison: &Comparison) {
        match &self.form {
            Form::Json => print(&json!({ "baseline": comparison }).to_string()),
            Form::Terminal(_) | Form::Lines { .. } => self.note(&comparison.to_string()),
        }
    }

    pub(super) fn note(&self, text: &str) {
        match &self.form {
            Form::Terminal(bar) => bar.println(text),
            Form::Lines { .. } => print(text),
            Form::Json => print(&json!({ "note": text }).to_string()),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Form::Terminal(bar) = &self.form {
            // The last line stays.
            bar.abandon();
        }
    }
}

/// Who stopped reading does not stop the training.
fn print(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}

fn line(record: &Record, steps: u64, left_s: f64) -> String {
    let number = |x: Option<f64>| x.map_or("no number".to_owned(), |x| format!("{x:.4}"));
    let mut parts = vec![
        format!("step {}/{steps}", record.step),
        format!("loss {}", number(record.loss)),
        format!("lr {:.2e}", record.learning_rate),
        format!("{} tok/s", thousands(record.tokens_per_second)),
        format!("mfu {:.1} %", 100.0 * record.mfu),
    ];
    if let Some(violation) = record.expert_max_violation {
        parts.push(format!("experts +{:.0} %", 100.0 * violation));
    }
    parts.push(format!("eta {}", duration(left_s)));
    if let Some(heldout) = record.heldout {
        let (loss, bits) = (heldout.loss, heldout.bits_per_byte);
        parts.push(format!("held out {loss:.4}, {bits:.4} bits/byte"));
    }
    if record.is_bad {
        parts.push("LEFT OUT".to_owned());
    }
    parts.join(" | ")
}

fn thousands(x: f64) -> String {
    match x {
        x if x >= 1e6 => format!("{:.1}M", x / 1e6),
        x if x >= 1e3 => format!("{:.1}k", x / 1e3),
        x => format!("{x:.0}"),
    }
}

fn duration(seconds: f64) -> String {
    let all = seconds.round() as u64;
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {seconds:02} s"),
        _ => format!("{hours} h {minutes:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{run::Score, watch::record::example};

    #[test]
    fn a_line_tells_all_that_a_run_is_judged_by() {
        let record = Record { tokens_per_second: 12_345.0, ..example(50) };
        assert_eq!(
            line(&record, 200, 192.0),
            "step 50/200 | loss 1.1000 | lr 1.00e-3 | 12.3k tok/s | mfu 40.0 % | experts +25 % | eta 3 min 12 s"
        );
        let heldout = Some(Score { loss: 2.0, bits_per_byte: 1.5 });
        let bad =
            Record { loss: None, is_bad: true, heldout, expert_max_violation: None, ..record };
        assert_eq!(
            line(&bad, 200, 7300.0),
            "step 50/200 | loss no number | lr 1.00e-3 | 12.3k tok/s | mfu 40.0 % | eta 2 h 01 min | held out 2.0000, \
             1.5000 bits/byte | LEFT OUT"
        );
    }
}
