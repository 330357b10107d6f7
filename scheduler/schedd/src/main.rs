//! The `ff2-schedd` process: reads its configuration, formats or serves.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use ff2_daemon::config::{self, SchedConfig};

/// The job scheduler of ff2.
#[derive(Debug, Parser)]
#[command(name = "ff2-schedd", version)]
struct Args {
    /// Configuration file (TOML).
    #[arg(long, env = "FF2_SCHEDD_CONFIG")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Make the first replicas of a new scheduler: run it once on each of them.
    Format,
    /// Serve (the default). With an empty data folder it joins the replicas that its peers form.
    Run,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match config::load::<SchedConfig>(&args.config) {
        Ok(config) => config,
        Err(error) => return failed(&anyhow::Error::from(error)),
    };
    match args.command.unwrap_or(Command::Run) {
        Command::Format => match ff2_schedd::format(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        },
        Command::Run => {
            ff2_daemon::run("ff2-schedd", env!("CARGO_PKG_VERSION"), config, ff2_schedd::serve)
        }
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("ff2-schedd: {error:#}");
    ExitCode::FAILURE
}
