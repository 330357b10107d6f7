//! `ff2-train`: what a training job runs. Owns the command line; models and their arithmetic are `ff2-model`'s.

mod inspect;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "ff2-train", version, about = "Trains and inspects models of the DeepSeek family")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write what a model computes for given tokens, tensor by tensor
    Inspect(inspect::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Inspect(arguments) => inspect::run(&arguments),
    }
}
