//! Two jobs on the cluster: one makes room for the other, and goes on where it was.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{cluster::Cluster, say::Say, shown};

const STEPS: u32 = 200;

/// Follows the contract of docs/JOBS.md, in a shell's words.
const SCRIPT: &str = r#"#!/bin/bash
#SBATCH --job-name=train --nodes=2 --gpus-per-node=8 --time=5
#FF2 --grace=10
state=$FF2_CHECKPOINT/step
step=$(cat "$state" 2>/dev/null || echo 0)
echo "rank $RANK of $WORLD_SIZE begins at step $step, attempt $FF2_ATTEMPT"
while [ "$step" -lt STEPS ]; do
  sleep 0.05
  step=$((step + 1))
  if [ "$RANK" = 0 ] && [ -e "$FF2_SUSPEND" ]; then
    echo "$step" >"$state"
    echo "asked to make room at step $step"
    touch "$FF2_ACK"
  fi
done
echo "rank $RANK is done after step $step"
"#;

/// Much longer than both take.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);

/// Returns how long the first of them took in all.
pub(super) fn play(cluster: &Cluster, say: Say) -> Result<Duration> {
    let script = cluster.mount().join("train.sh");
    fs::write(&script, SCRIPT.replace("STEPS", &STEPS.to_string())).context("write the job")?;
    let started = Instant::now();
    let first = submit(cluster, say, &[&shown(&script)])?;
    wait(cluster, first, "running")?;
    let urgent = ["--priority=high", "-J", "urgent", "-N", "2", "--gpus-per-node=8", "-t", "1"];
    let command = ["--", "bash", "-c", "echo rank $RANK is first; sleep 1"];
    let second = submit(cluster, say, &[&urgent[..], &command[..]].concat())?;
    wait(cluster, second, "succeeded")?;
    cluster.show(&["job", "list"])?;
    let shown = wait(cluster, first, "succeeded")?;
    let took = started.elapsed();
    cluster.show(&["job", "show", &first.to_string()])?;
    let attempts = shown["attempt"].as_u64();
    ensure!(attempts > Some(1), "the first job did not make room: {shown}");
    let log = cluster.mount().join(format!("jobs/{first}/logs/rank-0.log"));
    say.command(&format!("cat {}", log.display()));
    let text = fs::read_to_string(&log).context("read the job's log")?;
    say.line(text.trim_end());
    let mut steps = text.lines().filter_map(|line| line.split_once("begins at step "));
    let last = steps.next_back().and_then(|(_, rest)| rest.split(',').next()?.parse::<u32>().ok());
    ensure!(last > Some(0), "it began anew after it had made room");
    Ok(took)
}

pub(super) fn submit(cluster: &Cluster, say: Say, words: &[&str]) -> Result<u64> {
    hand_in(cluster, say, &[&["job", "submit"], words].concat())
}

/// A command that submits a job; returns its number.
pub(super) fn hand_in(cluster: &Cluster, say: Say, line: &[&str]) -> Result<u64> {
    say.command(&format!("ff2ctl {}", line.join(" ")));
    let told = cluster.json(line)?;
    let job = told["job"].as_u64().with_context(|| format!("no job came of it: {told}"))?;
    say.line(&format!("job {job}"));
    Ok(job)
}

pub(super) fn wait(cluster: &Cluster, job: u64, state: &str) -> Result<Value> {
    let started = Instant::now();
    loop {
        let told = cluster.json(&["job", "show", &job.to_string()])?;
        let is = told["state"].as_str().unwrap_or_default();
        if is == state {
            return Ok(told);
        }
        let is_over = told["ended_ms"].is_u64();
        if is_over || started.elapsed() > PATIENCE {
            bail!("job {job} was to be {state} and is {is}: {told}");
        }
        thread::sleep(POLL);
    }
}
