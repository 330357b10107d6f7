//! The demo's last words.

use std::time::Duration;

use anyhow::Result;
use indicatif::{HumanBytes, HumanCount};
use serde_json::json;

use super::{
    answer::Answer,
    copy::Copied,
    model::Learned,
    say::{self, Say},
};

#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) large: Copied,
    pub(super) small: Copied,
    pub(super) compile: Duration,
    pub(super) catch_up: Duration,
    /// From the submission of the first job to its end.
    pub(super) jobs: Duration,
    pub(super) verify: Duration,
    pub(super) verified_bytes: u64,
    pub(super) model: Learned,
    pub(super) answer: Answer,
}

impl Summary {
    /// JSON where the rest was quiet.
    pub(super) fn print(&self, total: Duration, say: Say) -> Result<()> {
        if say.is_quiet() {
            say::print(&serde_json::to_string_pretty(&self.json(total))?);
        } else {
            say.heading("Summary");
            say.line(&self.text(total));
        }
        Ok(())
    }

    fn text(&self, total: Duration) -> String {
        let (large, small) = (&self.large, &self.small);
        let row = |what: &str, time: Duration, note: &str| {
            format!("  {what:<18}{:>7.1} s   {note}\n", time.as_secs_f64())
        };
        let rate = |bytes, time| HumanBytes(per_second(bytes, time) as u64);
        let files = |count: usize| HumanCount(count as u64);
        row(
            "large files",
            large.took,
            &format!(
                "{} in {} files, {}/s, each byte on three disks",
                HumanBytes(large.bytes),
                files(large.files),
                rate(large.bytes, large.took)
            ),
        ) + &row(
            "small files",
            small.took,
            &format!(
                "{} in {} files, {:.0} files/s; a storage server and the metadata leader killed",
                HumanBytes(small.bytes),
                files(small.files),
                per_second(small.files as u64, small.took)
            ),
        ) + &row("longest pause", small.pause_max, "one call of one thread: it waited, and went on")
            + &row("compiled a crate", self.compile, "on the mount, with both servers dead")
            + &row("caught up", self.catch_up, "after both were started again")
            + &row(
                "a job, preempted",
                self.jobs,
                "it made room for another, and went on where it was",
            )
            + &row(
                "verified",
                self.verify,
                &format!(
                    "{} read back, {}/s, every byte equal",
                    HumanBytes(self.verified_bytes),
                    rate(self.verified_bytes, self.verify)
                ),
            )
            + &row(
                "a model, trained",
                self.model.took,
                &format!(
                    "{} steps in {} attempts; {:.2} bits a byte of held-out text (a trigram model: {:.2})",
                    HumanCount(self.model.steps),
                    self.model.attempts,
                    self.model.bits[0],
                    self.model.bits[1]
                ),
            )
            + &row(
                "served",
                self.answer.served_after,
                &format!("by two replicas: {:?}", self.answer.first_words()),
            )
            + &format!("  {:<18}{:>7.1} s", "in all", total.as_secs_f64())
    }

    fn json(&self, total: Duration) -> serde_json::Value {
        let copied = |copied: &Copied| {
            json!({
                "files": copied.files, "bytes": copied.bytes, "seconds": copied.took.as_secs_f64(),
                "longest_pause_s": copied.pause_max.as_secs_f64(),
            })
        };
        json!({
            "large": copied(&self.large),
            "small": copied(&self.small),
            "compile_s": self.compile.as_secs_f64(),
            "catch_up_s": self.catch_up.as_secs_f64(),
            "jobs_s": self.jobs.as_secs_f64(),
            "verify_s": self.verify.as_secs_f64(),
            "verified_bytes": self.verified_bytes,
            "model": {
                "seconds": self.model.took.as_secs_f64(), "steps": self.model.steps, "attempts": self.model.attempts,
                "bits_per_byte": self.model.bits[0], "trigram": self.model.bits[1], "bigram": self.model.bits[2],
            },
            "answer": { "served_after_s": self.answer.served_after.as_secs_f64(), "text": self.answer.text },
            "total_s": total.as_secs_f64(),
        })
    }
}

/// Also of work that took no time at all.
pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(0.001)
}
