//! `ff2-train`: from text files to a model that others can load. Owns tokenised data, the training loop, its
//! checkpoints and what people see of it; models and their arithmetic are `ff2-model`'s. People and jobs call it.

mod baseline;
mod checkpoint;
mod config;
mod data;
mod export;
mod inspect;
mod ngram;
mod read;
mod run;
mod schedule;
mod tokenize;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "ff2-train", version, about = "Trains and inspects models of the DeepSeek family")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a dataset of text files: a tokenizer, shards of tokens, some held out
    Tokenize(tokenize::Arguments),
    /// Tell how well a bigram and a trigram model know a dataset's held-out text
    Baseline(baseline::Arguments),
    /// Tell how fast a dataset is read, as training reads it
    Read(read::Arguments),
    /// Train a model, from the start or from its newest checkpoint
    Run(run::Arguments),
    /// Write a checkpoint's model in Hugging Face layout
    Export(export::Arguments),
    /// Write what a model computes for given tokens, tensor by tensor
    Inspect(inspect::Arguments),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Tokenize(arguments) => tokenize::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Baseline(arguments) => baseline::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Read(arguments) => read::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Run(arguments) => run::run(&arguments),
        Command::Export(arguments) => export::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Inspect(arguments) => inspect::run(&arguments).map(|()| ExitCode::SUCCESS),
    }
}
