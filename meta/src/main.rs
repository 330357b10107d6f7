//! The `ff2-metad` process: reads its configuration, formats or serves.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use ff2_daemon::config::{self, MetadConfig};

/// Metadata service of ff2: the cluster's state and the namespaces.
#[derive(Debug, Parser)]
#[command(name = "ff2-metad", version)]
struct Args {
    /// Configuration file (TOML).
    #[arg(long, env = "FF2_METAD_CONFIG")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Make the first replicas of a new cluster: run it once on each of its first metads.
    Format,
    /// Serve (the default). With an empty data folder it joins the cluster that its peers form.
    Run,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match config::load::<MetadConfig>(&args.config) {
        Ok(config) => config,
        Err(error) => return failed(&anyhow::Error::from(error)),
    };
    match args.command.unwrap_or(Command::Run) {
        Command::Format => match ff2_metad::format(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        },
        Command::Run => {
            ff2_daemon::run("ff2-metad", env!("CARGO_PKG_VERSION"), config, ff2_metad::serve)
        }
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("ff2-metad: {error:#}");
    ExitCode::FAILURE
}
