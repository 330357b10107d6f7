//! The `ff2-agentd` process: reads its configuration and serves, or is the keeper of a run.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use ff2_daemon::config::{self, AgentConfig};

/// Runs jobs on this node, as ff2's scheduler says.
#[derive(Debug, Parser)]
#[command(name = "ff2-agentd", version)]
struct Args {
    /// Configuration file (TOML).
    #[arg(long, env = "FF2_AGENTD_CONFIG", required_unless_present = "keep")]
    config: Option<PathBuf>,
    /// Of a run's keeper: the run's folder.
    #[arg(long, value_name = "DIR", hide = true)]
    keep: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Run,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(folder) = args.keep {
        return match ff2_agentd::keep(folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error.into()),
        };
    }
    let Some(path) = args.config else { return ExitCode::FAILURE };
    let config = match config::load::<AgentConfig>(&path) {
        Ok(config) => config,
        Err(error) => return failed(&anyhow::Error::from(error)),
    };
    ff2_daemon::run("ff2-agentd", env!("CARGO_PKG_VERSION"), config, ff2_agentd::serve)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("ff2-agentd: {error:#}");
    ExitCode::FAILURE
}
