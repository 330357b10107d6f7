//! `ff2-serve`: the program. Owns the command line; everything else is the library's.

mod key;
mod run;

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
    /// Make, show and remove API keys
    Key(key::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run(arguments) => run::run(*arguments),
        Command::Key(arguments) => key::run(arguments),
    }
}
