//! `ff2ctl kill ROLE/N`: SIGKILL, as a crash would be.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use crate::{cli::Surroundings, cluster::Name, process};

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// For example storaged/0
    #[arg(value_name = "ROLE/N")]
    process: Name,
}

pub(crate) fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let (folder, name) = (&around.folder, args.process);
    folder.load()?.find(name)?;
    let running = process::running(folder, name)
        .with_context(|| format!("{name} does not run; `ff2ctl up` starts it"))?;
    process::signal(running, Signal::KILL)?;
    let started = Instant::now();
    while running.is_running() {
        ensure!(started.elapsed() < PATIENCE, "{name} (process {}) does not die", running.pid);
        std::thread::sleep(Duration::from_millis(5));
    }
    let value = json!({ "killed": name.to_string(), "pid": running.pid });
    around.output.print(&value, || format!("killed {name} (process {})", running.pid))
}
