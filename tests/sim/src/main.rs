//! Runs seeds of the simulator: `ff2-sim --seed 7`, `ff2-sim --seeds 1000 --from 0`; with `--rpc` those
//! of the RPC layer.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
};

use clap::Parser;
use ff2_sim::{Verdict, run, run_rpc};

#[derive(Parser)]
#[command(about = "Simulates the whole cluster from a seed")]
struct Cli {
    /// One seed, with its faults and everything that went wrong.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The RPC layer and the chain client in virtual time, instead of the machines.
    #[arg(long)]
    rpc: bool,
}

/// Which of the two simulations.
#[derive(Clone, Copy)]
enum Simulation {
    Machines,
    Rpc,
}

impl Simulation {
    fn run(self, seed: u64) -> Verdict {
        match self {
            Self::Machines => run(seed),
            Self::Rpc => run_rpc(seed),
        }
    }

    /// Shows the verdict, and how to see a failure again.
    fn report(self, verdict: &Verdict) {
        println!("{verdict}");
        if !verdict.problems.is_empty() {
            verdict.problems.iter().for_each(|problem| println!("  {problem}"));
            let flag = match self {
                Self::Machines => "",
                Self::Rpc => "--rpc ",
            };
            println!("  replay: cargo xtask sim {flag}--seed {}", verdict.seed);
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let simulation = if cli.rpc { Simulation::Rpc } else { Simulation::Machines };
    let failed = match cli.seed {
        Some(seed) => {
            let verdict = simulation.run(seed);
            verdict.log.iter().for_each(|line| println!("{line}"));
            simulation.report(&verdict);
            u64::from(!verdict.problems.is_empty())
        }
        None => many(simulation, cli.from, cli.seeds),
    };
    ExitCode::from(u8::from(failed > 0))
}

/// Runs the seeds on all processors; returns how many failed.
fn many(simulation: Simulation, from: u64, seeds: u64) -> u64 {
    let (next, failed) = (AtomicU64::new(from), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        break;
                    }
                    let verdict = simulation.run(seed);
                    simulation.report(&verdict);
                    failed.fetch_add(u64::from(!verdict.problems.is_empty()), Ordering::Relaxed);
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{} seeds, {failed} failed", seeds);
    failed
}
