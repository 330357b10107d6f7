//! `ff2ctl fabric`: reads files, asks the pure crates, and says what they answer.
//!
//! It prints nothing: [`Answer`] is what `ff2ctl` prints as JSON or for people. It never talks to a cluster.

mod file;
mod generate;
mod route;
mod simulate;
mod translate;

use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;

/// What a command has to say.
#[derive(Clone, Debug)]
pub struct Answer {
    pub value: Value,
    /// The same for people.
    pub text: String,
}

/// Plans, checks, routes and simulates networks.
#[derive(Clone, Debug, Subcommand)]
pub enum FabricCommand {
    /// Make a fat tree by numbers; by default the network of Fire-Flyer 2.
    Generate(generate::GenerateArgs),
    /// Read a file of another program and print it as JSON.
    Import(translate::ImportArgs),
    /// Write a network in a format of another program.
    Export(translate::ExportArgs),
    /// Name wiring faults by port.
    Check(translate::CheckArgs),
    /// Build forwarding tables, and tell what failures change.
    Route(route::RouteArgs),
    /// Share the network among flows, and tell what binds them.
    Simulate(simulate::SimulateArgs),
}

impl FabricCommand {
    /// Fails with what is wrong in a file or in the numbers given.
    pub fn run(&self) -> Result<Answer> {
        match self {
            Self::Generate(args) => generate::run(args),
            Self::Import(args) => translate::import(args),
            Self::Export(args) => translate::export(args),
            Self::Check(args) => translate::check(args),
            Self::Route(args) => route::run(args),
            Self::Simulate(args) => simulate::run(args),
        }
    }
}
