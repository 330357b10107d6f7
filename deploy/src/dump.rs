//! `ff2ctl admin`: what one process of the local cluster says about itself, through its admin socket.

use anyhow::{Context, Result};
use ff2_daemon::{admin_get, admin_text};
use serde_json::Value;

use crate::{cli::Surroundings, cluster::Name, process};

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Its whole inner state, as JSON.
    Dump(Process),
    /// Whether it serves.
    Status(Process),
    /// Its effective configuration.
    Config(Process),
    /// What it works on right now, and for how long.
    Inflight(Process),
    /// Its metrics, as Prometheus reads them.
    Metrics(Process),
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Process {
    /// For example storaged/0
    #[arg(value_name = "ROLE/N")]
    process: Name,
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let (page, process) = match command {
        Command::Dump(process) => ("/dump", process),
        Command::Status(process) => ("/status", process),
        Command::Config(process) => ("/config", process),
        Command::Inflight(process) => ("/inflight", process),
        Command::Metrics(process) => ("/metrics", process),
    };
    let (folder, name) = (&around.folder, process.process);
    folder.load()?.find(name)?;
    process::running(folder, name)
        .with_context(|| format!("{name} does not run; `ff2ctl up` starts it"))?;
    let asked = || format!("ask {name} for {page}; its log is {}", folder.log(name).display());
    let data = folder.data(name);
    if let Command::Metrics(_) = command {
        let text = admin_text(&data, page).await.with_context(asked)?;
        return around.output.print(&Value::String(text.clone()), || text);
    }
    let value = admin_get(&data, page).await.with_context(asked)?;
    let people = serde_json::to_string_pretty(&value)?;
    around.output.print(&value, || people)
}
