//! `ff2-fuse --config F`: mounts one volume and serves it until SIGTERM or an unmount.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use ff2_daemon::config::MountConfig;

#[derive(Debug, Parser)]
#[command(
    name = "ff2-fuse",
    version,
    about = "Mounts an ff2 volume",
    subcommand_negates_reqs = true
)]
struct Arguments {
    /// Configuration of the mount (TOML).
    #[arg(long, required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Waits for the end of the process at the other end of standard input, then takes the mount
    /// point away if it is dead. Started by the mount itself.
    #[command(hide = true, name = ff2_fuse::guard::ARGUMENT)]
    Guard { mount_point: PathBuf },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match (arguments.command, arguments.config) {
        (Some(Action::Guard { mount_point }), _) => guard(&mount_point),
        (None, Some(config)) => mount(&config),
        (None, None) => unreachable!("clap requires one of them"),
    }
}

fn guard(mount_point: &std::path::Path) -> ExitCode {
    match ff2_fuse::guard::watch(mount_point) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ff2-fuse guard: {}: {error}", mount_point.display());
            ExitCode::FAILURE
        }
    }
}

fn mount(config: &std::path::Path) -> ExitCode {
    match ff2_daemon::config::load::<MountConfig>(config) {
        Ok(config) => {
            ff2_daemon::run("ff2-fuse", env!("CARGO_PKG_VERSION"), config, ff2_fuse::serve)
        }
        Err(error) => {
            eprintln!("ff2-fuse: {error}");
            ExitCode::FAILURE
        }
    }
}
