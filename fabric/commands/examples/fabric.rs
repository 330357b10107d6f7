//! `ff2ctl fabric` alone, without the rest of ff2ctl: `cargo run -p ff2-fabric-commands --example fabric -- --help`.
#![expect(clippy::print_stdout, reason = "it is a program")]

use anyhow::Result;
use clap::Parser;
use ff2_fabric_commands::FabricCommand;

#[derive(Debug, Parser)]
struct Fabric {
    /// For programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: FabricCommand,
}

fn main() -> Result<()> {
    let fabric = Fabric::parse();
    let answer = fabric.command.run()?;
    match fabric.json {
        true => println!("{}", serde_json::to_string_pretty(&answer.value)?),
        false => print!("{}", answer.text),
    }
    Ok(())
}
