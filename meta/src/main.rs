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

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Make the first replicas of a new cluster: run it once on each of its first metads.
    Format {
        /// Instead of an empty state, that of a backup which `ff2ctl backup create` made of this cluster: where all
        /// metads were lost.
        #[arg(long, value_name = "FILE", requires = "restored_at")]
        restore: Option<PathBuf>,
        /// The time of the restore, as `date +%s` says it: the same on all metads, asked for once.
        #[arg(long, value_name = "SECONDS", requires = "restore")]
        restored_at: Option<u64>,
    },
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
        Command::Format { restore, restored_at } => {
            let made = match restore.zip(restored_at) {
                Some((file, at_s)) => {
                    ff2_metad::restore(&config, &ff2_metad::Restore { file, at_s })
                }
                None => ff2_metad::format(&config),
            };
            match made {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error),
            }
        }
        Command::Run => {
            ff2_daemon::run("ff2-metad", env!("CARGO_PKG_VERSION"), config, ff2_metad::serve)
        }
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("ff2-metad: {error:#}");
    ExitCode::FAILURE
}
