//! `ff2ctl`: starts a local cluster, looks into any cluster, and exercises it.
//!
//! One file per command. A command that changes processes decides first, in a function that returns
//! a list of steps ([`up`]), and then does them. What only the cluster knows is asked over metad's
//! gRPC ([`connect`]), what only one process knows through its admin socket. No command keeps state
//! of its own besides the cluster's folder ([`cluster`]).

mod audit;
mod backup;
mod bench;
mod bytes;
mod chain;
mod cli;
mod cluster;
mod completion;
mod config;
mod connect;
mod demo;
mod down;
mod dump;
mod fabric;
mod folder;
mod fs;
mod fsck;
mod group;
mod job;
mod kill;
mod metad;
mod mount;
mod moves;
mod node;
mod output;
mod own;
mod process;
mod ps;
mod queue;
mod quota;
mod rebalance;
mod restart;
mod restore;
mod sched;
mod scrub;
mod security;
mod serve;
mod session;
mod show;
mod snapshot;
mod status;
mod stop;
mod table;
mod target;
mod train;
mod trash;
mod up;
mod upgrade;
mod user;
mod volume;
mod why;

use std::process::ExitCode;

use clap::Parser;

/// Parses the command line, runs the command, and tells what went wrong.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let output = cli.output();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", output.failure(&error));
            ExitCode::FAILURE
        }
    }
}
