//! A model learns a book on the cluster, makes room for an urgent job, loses a storage server, and goes on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{cluster::Cluster, jobs, program, progress, say::Say, shown};

/// Its comments tell where the book comes from.
const CONFIG: &str = include_str!("../../demo/model.toml");
/// The book is cut into so many pieces. The end of each is held out.
const PIECES: usize = 64;
/// After this part of the steps the urgent job comes, and the server dies.
const ROOM_AFTER: f64 = 0.1;
const PATIENCE: Duration = Duration::from_secs(420);
const POLL: Duration = Duration::from_millis(300);

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// In the layout of Hugging Face, on the mount.
    pub(super) folder: PathBuf,
    /// From the submission to the end.
    pub(super) took: Duration,
    pub(super) steps: u64,
    /// Times that it was started.
    pub(super) attempts: u64,
    /// Bits a byte of held-out text: of the model, of a trigram model and of a bigram model of the same text.
    pub(super) bits: [f64; 3],
}

pub(super) fn learn(cluster: &Cluster, book: &Path, say: Say) -> Result<Learned> {
    let at = cluster.mount().join("model");
    let [text, tokens, out] = ["text", "tokens", "out"].map(|name| at.join(name));
    cut(book, &text)?;
    train(
        cluster,
        say,
        &[
            "tokenize",
            "--vocab",
            "264",
            "--heldout",
            "0.03",
            "--out",
            &shown(&tokens),
            &shown(&text),
        ],
    )?;
    let config = at.join("model.toml");
    fs::write(&config, CONFIG).with_context(|| format!("write {}", config.display()))?;
    let config = shown(&config);
    let steps =
        CONFIG.parse::<toml::Table>().ok().and_then(|table| table.get("steps")?.as_integer());
    let steps = u64::try_from(steps.context("the demo's model.toml has steps")?)?;

    let started = Instant::now();
    let (data, out_folder) =
        (format!("data.folder={}", shown(&tokens)), format!("out={}", shown(&out)));
    // What it must beat is told by a command of its own, below.
    let set = ["--set", &data, "--set", &out_folder, "--set", "evaluate.baseline=false"];
    let line = [&["train", "--config", &config], &set[..], &["--", "--gpus-per-node=8"]].concat();
    let job = jobs::hand_in(cluster, say, &line)?;
    let mut course = Course {
        cluster,
        job,
        metrics: out.join("metrics.jsonl"),
        steps,
        bar: progress::steps(steps),
    };
    course.wait_for_step((steps as f64 * ROOM_AFTER) as u64)?;
    course.bar.suspend(|| {
        cluster.show(&["kill", "storaged/1"])?;
        let urgent = ["--priority=high", "-J", "urgent", "-N", "2", "--gpus-per-node=8", "-t", "1"];
        let urgent = jobs::submit(cluster, say, &[&urgent[..], &["--", "true"]].concat())?;
        jobs::wait(cluster, urgent, "succeeded")?;
        cluster.show(&["job", "list"])
    })?;
    course.wait_for_step(steps)?;
    course.bar.finish_and_clear();
    let ended = jobs::wait(cluster, job, "succeeded")?;
    let took = started.elapsed();
    cluster.revive()?;
    let attempts = ended["attempt"].as_u64().unwrap_or_default();
    ensure!(attempts > 1, "the training did not make room: {ended}");
    let model = course.heldout()?;
    let asked = [
        "baseline",
        "--json",
        "--data",
        &shown(&tokens),
        "--sequence",
        "64",
        "--sequences",
        "1000",
    ];
    let told: Value =
        serde_json::from_str(&train(cluster, say, &asked)?).context("read the baseline")?;
    let bits =
        |of: &str| told[of]["bits_per_byte"].as_f64().with_context(|| format!("no {of} in {told}"));
    let (bigram, trigram) = (bits("bigram")?, bits("trigram")?);
    say.line(&format!(
        "held out: {model:.4} bits a byte; a trigram model of the same text: {trigram:.4}, a bigram model: {bigram:.4}"
    ));
    ensure!(model < trigram.min(bigram), "the model knows the text no better than a trigram model");

    let folder = at.join("ulysses");
    let checkpoints = shown(&cluster.mount().join(format!("jobs/{job}/checkpoint")));
    train(cluster, say, &["export", "--checkpoint", &checkpoints, "--out", &shown(&folder)])?;
    Ok(Learned { folder, took, steps, attempts, bits: [model, trigram, bigram] })
}

/// Into pieces of whole lines and of about the same size.
fn cut(book: &Path, into: &Path) -> Result<()> {
    let text = fs::read_to_string(book).with_context(|| format!("read {}", book.display()))?;
    fs::create_dir_all(into).with_context(|| format!("create {}", into.display()))?;
    let mut rest = text.as_str();
    for piece in 0..PIECES {
        let size = rest.len() / (PIECES - piece);
        let line_ends =
            rest.as_bytes()[size.min(rest.len())..].iter().position(|&byte| byte == b'\n');
        let (now, later) = rest.split_at(line_ends.map_or(rest.len(), |at| size + at + 1));
        let path = into.join(format!("part-{piece:02}"));
        fs::write(&path, now).with_context(|| format!("write {}", path.display()))?;
        rest = later;
    }
    Ok(())
}

/// Runs the command, and returns what it printed.
fn train(cluster: &Cluster, say: Say, words: &[&str]) -> Result<String> {
    say.command(&format!("ff2-train {}", words.join(" ")));
    let mut command = Command::new(program("ff2-train")?);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
    if say.is_quiet() {
        command.stderr(Stdio::null());
    }
    let output = cluster.stop().run(&mut command).context("run ff2-train")?;
    ensure!(output.status.success(), "ff2-train {} failed", words.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A run, watched by what it writes of each step.
struct Course<'a> {
    cluster: &'a Cluster,
    job: u64,
    metrics: PathBuf,
    steps: u64,
    bar: indicatif::ProgressBar,
}

impl Course<'_> {
    fn wait_for_step(&mut self, step: u64) -> Result<()> {
        let started = Instant::now();
        loop {
            let text = fs::read_to_string(&self.metrics).unwrap_or_default();
            let lines =
                text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let last = lines
                .filter_map(|line| Some((line["step"].as_u64()?, line["loss"].as_f64())))
                .next();
            let (at, loss) = last.unwrap_or_default();
            self.bar.set_position(at);
            if let Some(loss) = loss {
                self.bar.set_message(format!("loss {loss:.3}"));
            }
            if at >= step {
                return Ok(());
            }
            let told = self.cluster.json(&["job", "show", &self.job.to_string()])?;
            if told["ended_ms"].is_u64() || started.elapsed() > PATIENCE {
                bail!(
                    "the training is at step {at} of {}, and was to reach {step}: {told}",
                    self.steps
                );
            }
            thread::sleep(POLL);
        }
    }

    /// Bits a byte, when it was last asked for the held-out text.
    fn heldout(&self) -> Result<f64> {
        let text = fs::read_to_string(&self.metrics).context("read the run's metrics")?;
        let mut lines =
            text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let bits = lines.find_map(|line| line["heldout"]["bits_per_byte"].as_f64());
        bits.context("the run was not asked for the held-out text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_is_cut_at_lines_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let book = folder.path().join("book");
        let text: String =
            (0..1_000).map(|line| format!("line {line}, {}\n", "é".repeat(line % 90))).collect();
        fs::write(&book, &text).unwrap();
        let into = folder.path().join("text");
        cut(&book, &into).unwrap();
        let parts: Vec<_> = (0..PIECES)
            .map(|piece| fs::read_to_string(into.join(format!("part-{piece:02}"))).unwrap())
            .collect();
        assert_eq!(parts.concat(), text);
        for part in &parts {
            assert!(part.ends_with('\n') && part.len() < 2 * text.len() / PIECES, "{}", part.len());
        }
    }
}
