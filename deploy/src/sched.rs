//! `ff2ctl sched`: the scheduler's policies, without a cluster.

mod replay;

use anyhow::Result;

use crate::output::Output;

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run a trace of jobs through the scheduler, in simulated time.
    ///
    /// The trace is a table (CSV) with the columns num_gpu, submit_time and duration, as those of Muri and Tiresias
    /// are. Nodes have 8 GPUs; a job that is suspended loses 65 s.
    Replay(replay::Args),
}

pub(crate) fn run(output: Output, command: &Command) -> Result<()> {
    match command {
        Command::Replay(args) => replay::run(output, args),
    }
}
