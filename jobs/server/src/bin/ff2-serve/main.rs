//! `ff2-serve`: the program. Owns the command line; everything else is the library's.

mod access;
mod key;
mod replica;
mod report;
mod route;
mod run;
mod told;

use std::io::IsTerminal;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "ff2-serve",
    version,
    about = "Serves a model of the DeepSeek family as OpenAI's interface does"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the model of a folder
    Run(Box<run::Arguments>),
    /// Be one address before the replicas of a service
    Route(Box<route::Arguments>),
    /// How a service does now, as its routers say
    Report(report::Arguments),
    /// Make, show and remove API keys
    Key(key::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run(arguments) => run::run(*arguments),
        Command::Route(arguments) => route::run(*arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Key(arguments) => key::run(arguments),
    }
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FF2_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
