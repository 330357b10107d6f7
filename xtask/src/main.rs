//! Developer tasks. `cargo xtask check` is everything that must hold before a change lands;
//! the other commands are its steps, and the simulator.

use std::{
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

mod dependencies;
mod imports;
mod promises;
mod purity;
mod tidy;
mod upgrade;
mod workspace;

#[derive(Parser)]
#[command(about = "Developer tasks of ff2")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must hold before a change lands.
    Check,
    /// File sizes, module docs, words that do not belong, links in docs.
    Tidy,
    /// Licences and duplicate versions of dependencies, each listed in docs/DEPENDENCIES.md.
    Dependencies,
    /// The examples in docs, which nextest does not run.
    Doctests,
    /// Core crates depend on no runtime, clock, randomness, file or socket.
    Purity,
    /// Upgrades a cluster under load from the programs of another commit, which are built and kept in target/upgrade.
    Upgrade {
        /// The commit to come from.
        #[arg(long, value_name = "REV", required_unless_present = "programs")]
        from: Option<String>,
        /// Programs that are built already, in this folder.
        #[arg(long, value_name = "DIR", conflicts_with = "from")]
        programs: Option<std::path::PathBuf>,
    },
    /// Runs the simulator: `cargo xtask sim --seed 7` or `--seeds 1000`, `--rpc` for that of the RPC layer.
    Sim {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // The reason comes last, where whoever sees only the end of a long output finds it.
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = workspace::root()?;
    match Cli::parse().task {
        Task::Check => check(),
        Task::Tidy => tidy::run(&root),
        Task::Dependencies => dependencies::run(&root),
        Task::Doctests => doctests(),
        Task::Purity => purity::run(&root),
        Task::Upgrade { from, programs } => upgrade::run(&root, from.as_deref(), programs),
        Task::Sim { args } => {
            // Of the whole workspace, as everything here (see `doctests`): so by the binary's name.
            let mut all = vec!["run", "--locked", "--bin", "ff2-sim", "--"];
            all.extend(args.iter().map(String::as_str));
            cargo("simulate", &all, &[])
        }
    }
}

/// Cheap checks first, so that a slip costs seconds. Tests come last and print the closing lines.
fn check() -> Result<()> {
    let root = workspace::root()?;
    cargo("formatting (mend with `cargo fmt`)", &["fmt", "--all", "--check"], &[])?;
    tidy::run(&root)?;
    dependencies::run(&root)?;
    purity::run(&root)?;
    let clippy =
        ["clippy", "--locked", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    cargo("clippy", &clippy, &[])?;
    let doc = ["doc", "--locked", "--workspace", "--no-deps", "--quiet"];
    // Links to private modules are meant: a crate's front page tells its story to who works on it.
    let flags = "-D warnings -A rustdoc::private_intra_doc_links";
    cargo("docs", &doc, &[("RUSTDOCFLAGS", flags)])?;
    // The cluster tests start the daemons, so these are built first.
    cargo("build", &["build", "--locked", "--workspace", "--bins"], &[])?;
    doctests()?;
    cargo("tests", &["nextest", "run", "--locked", "--workspace"], &[])
}

/// Of the whole workspace, as everything here: with other features than those of the build, third
/// parties would be compiled anew.
fn doctests() -> Result<()> {
    cargo("examples in docs", &["test", "--doc", "--locked", "--workspace", "--quiet"], &[])
}

fn cargo(what: &str, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    eprintln!("== {what}");
    let begun = Instant::now();
    let status = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(args)
        .envs(env.iter().copied())
        .status()
        .with_context(|| format!("start cargo {}", args.join(" ")))?;
    ensure!(status.success(), "{what} failed: cargo {}", args.join(" "));
    // Where the time of a landing goes.
    eprintln!("== {what}: {} s", begun.elapsed().as_secs());
    Ok(())
}
