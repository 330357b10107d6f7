//! Runs a program, such as a test binary, in the test machine: `ff2-vm target/debug/deps/confine-1234 -- --nocapture`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line")]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::Parser;
use ff2_vm::Job;

#[derive(Parser)]
#[command(
    about = "Runs a program in a throw-away virtual machine with RDMA devices and control groups"
)]
struct Cli {
    /// Of this host; its libraries come along.
    program: PathBuf,
    /// The whole run, boot included.
    #[arg(long, default_value_t = 150)]
    seconds: u64,
    #[arg(long, default_value_t = 768)]
    memory_mib: u32,
    /// More programs and files of this host, at the same places in the machine or behind a colon.
    #[arg(long, value_name = "PATH[:PLACE]", value_parser = file)]
    file: Vec<(PathBuf, String)>,
    /// NAME=VALUE for the program.
    #[arg(long = "env", value_parser = variable)]
    environment: Vec<(String, String)>,
    /// What the kernel says, too.
    #[arg(long, short)]
    verbose: bool,
    #[arg(last = true)]
    arguments: Vec<String>,
}

fn file(text: &str) -> Result<(PathBuf, String), String> {
    let (from, to) = text.split_once(':').unwrap_or((text, text));
    let absolute = to.starts_with('/');
    absolute.then(|| (from.into(), to.into())).ok_or_else(|| format!("`{to}` is not absolute"))
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let missing = ff2_vm::missing();
    ensure!(missing.is_empty(), "{missing:?} are missing: deploy/install-packages.sh test");
    let arguments: Vec<&str> = cli.arguments.iter().map(String::as_str).collect();
    let environment: Vec<_> =
        cli.environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let ended = ff2_vm::run(&Job {
        arguments: &arguments,
        environment: &environment,
        time_max: Duration::from_secs(cli.seconds),
        memory_mib: cli.memory_mib,
        files: &cli.file,
        ..Job::new(&cli.program)
    })?;
    if cli.verbose {
        eprint!("{}", ended.console);
    }
    print!("{}", ended.output);
    Ok(ExitCode::from(u8::try_from(ended.status).unwrap_or(u8::MAX)))
}
