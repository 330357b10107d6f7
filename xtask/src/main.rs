//! Developer tasks. `cargo xtask check` is everything that must hold before a change lands;
//! the other commands are its steps, and the simulator.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

mod dependencies;
mod doctests;
mod purity;
mod tidy;
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
    /// Runs the simulator: `cargo xtask sim --seed 7` or `--seeds 1000`.
    Sim {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> Result<()> {
    let root = workspace::root()?;
    match Cli::parse().task {
        Task::Check => check(),
        Task::Tidy => tidy::run(&root),
        Task::Dependencies => dependencies::run(&root),
        Task::Doctests => doctests(&root),
        Task::Purity => purity::run(&root),
        Task::Sim { args } => {
            let mut all = vec!["run", "--locked", "--package", "ff2-sim", "--"];
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
    cargo("docs", &doc, &[("RUSTDOCFLAGS", "-D warnings")])?;
    // The cluster tests start the daemons, so these are built first.
    cargo("build", &["build", "--locked", "--workspace", "--bins"], &[])?;
    doctests(&root)?;
    cargo("tests", &["nextest", "run", "--locked", "--workspace"], &[])
}

/// Only the crates that have examples: each costs a link.
fn doctests(root: &Path) -> Result<()> {
    let mut args = vec!["test".to_owned(), "--doc".into(), "--locked".into(), "--quiet".into()];
    for name in doctests::crates(root)? {
        args.extend(["--package".into(), name]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    cargo("examples in docs", &args, &[])
}

fn cargo(what: &str, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    eprintln!("== {what}");
    let status = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(args)
        .envs(env.iter().copied())
        .status()
        .with_context(|| format!("start cargo {}", args.join(" ")))?;
    ensure!(status.success(), "{what} failed: cargo {}", args.join(" "));
    Ok(())
}
