//! The `ff2-storaged` process: reads its configuration, formats or serves.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use ff2_daemon::config::{self, StoragedConfig};

/// Chunk server of ff2: targets of replication chains on local disks.
#[derive(Debug, Parser)]
#[command(name = "ff2-storaged", version)]
struct Args {
    /// Configuration file (TOML).
    #[arg(long, env = "FF2_STORAGED_CONFIG")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Make the disks of the configuration that are not made yet. Existing ones stay as they are.
    Format,
    /// Serve (the default).
    Run,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match config::load::<StoragedConfig>(&args.config) {
        Ok(config) => config,
        Err(error) => return failed(&anyhow::Error::from(error)),
    };
    match args.command.unwrap_or(Command::Run) {
        Command::Format => match ff2_storaged::format(&config) {
            Ok(made) => {
                println!("{made} of {} disks made", config.disks.len());
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error),
        },
        Command::Run => {
            ff2_daemon::run("ff2-storaged", env!("CARGO_PKG_VERSION"), config, ff2_storaged::serve)
        }
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("ff2-storaged: {error:#}");
    ExitCode::FAILURE
}
