//! `ff2ctl job run --local`: a job on this machine, without a cluster.

mod lines;
mod local;

use anyhow::Result;

use crate::output::Output;

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run a job on this machine, and see how it bears being suspended.
    ///
    /// Its processes find the same environment and files as in a cluster (docs/JOBS.md). With --suspend-after it is
    /// asked to make room after so many seconds, ended, and started again at once: what it kept must be enough to
    /// go on.
    Run(local::Args),
}

pub(crate) fn run(output: Output, command: Command) -> Result<()> {
    match command {
        Command::Run(args) => local::run(output, &args),
    }
}
