//! `ff2-fuse --config F`: mounts one volume and serves it until SIGTERM or an unmount. Under the name
//! `mount.ff2` it is the helper of mount(8).

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use ff2_daemon::config::{MountConfig, OverIoUring};
use ff2_fuse::helper::{self, Changes};

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
    /// Mount here instead.
    #[arg(long, value_name = "FOLDER")]
    mount_point: Option<PathBuf>,
    /// Admin socket and logs there instead.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Mount this folder of the volume instead.
    #[arg(long, value_name = "PATH")]
    subdir: Option<String>,
    /// For how long names and attributes may be shown without asking again.
    #[arg(long, value_name = "MILLISECONDS")]
    cache_ms: Option<u64>,
    /// Whether the kernel's requests come over io_uring: auto, yes or no.
    #[arg(long, value_name = "WHETHER")]
    io_uring: Option<OverIoUring>,
    #[arg(long)]
    read_only: bool,
    /// Let other users in.
    #[arg(long)]
    allow_other: bool,
    /// Changes of names return when they are durable.
    #[arg(long)]
    dirsync: bool,
    /// Reads change no access times.
    #[arg(long)]
    noatime: bool,
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
    let name = env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name() == Some(OsStr::new(helper::NAME)) {
        return help(env::args_os().skip(1));
    }
    let Arguments {
        config,
        mount_point,
        data_dir,
        subdir,
        cache_ms,
        io_uring,
        read_only,
        allow_other,
        dirsync,
        noatime,
        command,
    } = Arguments::parse();
    let changes = Changes {
        mount_point,
        data_dir,
        read_only,
        allow_other,
        dirsync,
        noatime,
        subdir,
        cache_ms,
        io_uring,
    };
    match (command, config) {
        (Some(Action::Guard { mount_point }), _) => guard(&mount_point),
        (None, Some(config)) => mount(&config, changes),
        (None, None) => unreachable!("clap requires one of them"),
    }
}

fn guard(mount_point: &Path) -> ExitCode {
    match ff2_fuse::guard::watch(mount_point) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ff2-fuse guard: {}: {error}", mount_point.display());
            ExitCode::FAILURE
        }
    }
}

fn mount(config: &Path, changes: Changes) -> ExitCode {
    match ff2_daemon::config::load::<MountConfig>(config) {
        Ok(mut config) => {
            changes.apply(&mut config);
            ff2_daemon::run("ff2-fuse", env!("CARGO_PKG_VERSION"), config, ff2_fuse::serve)
        }
        Err(error) => {
            eprintln!("ff2-fuse: {error}");
            ExitCode::FAILURE
        }
    }
}

fn help(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (outcome, code) = match helper::parse(arguments) {
        Ok(request) => (helper::run(request), helper::FAILED),
        Err(wrong) => (Err(wrong), helper::WRONG_USE),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{}: {why}", helper::NAME);
            ExitCode::from(code)
        }
    }
}
