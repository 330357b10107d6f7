//! Runs seeds of the simulator: `ff2-sim --seed 7`, `--seeds 1000 --from 0`, `--hours 8`; `--rpc` runs those
//! of the RPC layer, `--mutations` tells by which seed each planted error is found.

mod campaign;
mod mutations;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use campaign::{Campaign, Seeds, Simulation};
use clap::Parser;
use ff2_sim::{Mutation, Setting, Table};

#[derive(Parser)]
#[command(about = "Simulates the whole cluster from a seed")]
struct Cli {
    /// One seed, with its faults and everything that went wrong.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds.
    #[arg(long, default_value_t = 100, conflicts_with = "hours")]
    seeds: u64,
    /// New seeds until so many hours have passed.
    #[arg(long)]
    hours: Option<f64>,
    /// The first seed; with --hours, the time in seconds is the default, so that each night has its own.
    #[arg(long)]
    from: Option<u64>,
    /// Where --hours adds the seeds that failed, each with the command that shows it again.
    #[arg(long, default_value = "target/sim-failures.txt")]
    failures: PathBuf,
    /// The RPC layer and the chain client in virtual time, instead of the machines.
    #[arg(long)]
    rpc: bool,
    /// Plants this error into the nodes.
    #[arg(long, conflicts_with = "rpc")]
    mutation: Option<Mutation>,
    /// How the chains lie on the storage nodes.
    #[arg(long, value_enum, default_value_t, conflicts_with = "rpc")]
    table: Table,
    /// Looks for the first seed that finds each planted error, within --seeds (1000 is the promise).
    #[arg(long, conflicts_with_all = ["seed", "hours", "rpc", "mutation", "table"])]
    mutations: bool,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let from = cli.from.unwrap_or(0);
    if cli.mutations {
        return Ok(code(mutations::all_found(from, cli.seeds)));
    }
    let setting = Setting { mutation: cli.mutation, table: cli.table };
    let simulation = if cli.rpc { Simulation::Rpc } else { Simulation::Machines(setting) };
    if let Some(seed) = cli.seed {
        let verdict = simulation.run(seed);
        verdict.log.iter().for_each(|line| println!("{line}"));
        campaign::show_marks(&verdict.marks);
        println!("duties done: {:?}", verdict.seen);
        simulation.report(&verdict);
        return Ok(code(verdict.problems.is_empty()));
    }
    let seeds = match cli.hours {
        None => Seeds::Count { from, count: cli.seeds },
        Some(hours) => {
            let time = || std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
            let limit = Duration::try_from_secs_f64(hours * 3600.0)?;
            Seeds::Until { from: cli.from.unwrap_or_else(time), limit, failures: cli.failures }
        }
    };
    Campaign::new(simulation, seeds).run().map(code)
}

fn code(held: bool) -> ExitCode {
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
