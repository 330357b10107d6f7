//! `ff2ctl job`: programs of several processes that can be suspended, on the cluster or on this machine.

mod change;
mod lines;
mod list;
mod local;
mod logs;
mod run;
mod show;
pub(crate) mod submit;
mod words;

pub(crate) use words::gpus as gpus_of;

use anyhow::Result;

use crate::cli::Surroundings;

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Hand in a job: a script, a YAML file, or a command behind `--`.
    ///
    /// A script's `#SBATCH` and `#FF2` lines say what it needs; options before its name go over them, the words behind
    /// it are the script's own. All of sbatch's options are read, those that change nothing here with a warning. Each
    /// rank runs the script (docs/JOBS.md).
    Submit(submit::Args),
    /// Run a job and show what it prints; `--local` on this machine, to see how it bears being suspended.
    ///
    /// Its processes find the same environment and files here and in a cluster (docs/JOBS.md). With --suspend-after it
    /// is asked to make room after so many seconds, ended, and started again at once: what it kept must be enough to
    /// go on.
    Run(local::Args),
    /// Jobs that run and wait.
    List(list::Args),
    /// All of a job: what it asked for, where it ran, how each run ended.
    Show(show::Args),
    /// Why a job does not run.
    Why { job: u64 },
    /// When a job that waits starts at the latest, as far as that is known.
    Eta { job: u64 },
    /// What the ranks of a job print.
    Logs(logs::Args),
    /// Have a job make room, and hold it until it is resumed.
    Suspend { job: u64 },
    /// Let a job go that is held.
    Resume { job: u64 },
    /// End a job, or with the first of an array or service all of it.
    Cancel { job: u64 },
    /// Have a job make room and wait for its turn again.
    Requeue { job: u64 },
    /// Change how many replicas a service has.
    Scale {
        job: u64,
        /// So many that are not preempted.
        min: u32,
        /// And up to so many where there is room.
        max: u32,
    },
    /// Where each rank of a job runs.
    Ranks { job: u64 },
    /// GPU time and what it costs: of a job, or of all groups and users.
    Cost { job: Option<u64> },
}

pub(crate) fn run(around: &Surroundings, command: Command) -> Result<()> {
    match command {
        Command::Run(args) if args.is_local() => local::run(around.output, &args),
        command => {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            tokio.block_on(Box::pin(on_cluster(around, command)))
        }
    }
}

async fn on_cluster(around: &Surroundings, command: Command) -> Result<()> {
    use ff2_proto::pb::JobChange;
    match command {
        Command::Submit(args) => submit::run(around, &args).await,
        Command::Run(args) => run::run(around, &args).await,
        Command::List(args) => list::run(around, &args).await,
        Command::Show(args) => show::run(around, &args).await,
        Command::Why { job } => show::why(around, job).await,
        Command::Eta { job } => show::eta(around, job).await,
        Command::Logs(args) => logs::run(around, &args).await,
        Command::Suspend { job } => change::run(around, job, JobChange::JobSuspend).await,
        Command::Resume { job } => change::run(around, job, JobChange::JobResume).await,
        Command::Cancel { job } => change::run(around, job, JobChange::JobCancel).await,
        Command::Requeue { job } => change::run(around, job, JobChange::JobRequeue).await,
        Command::Scale { job, min, max } => change::scale(around, job, min, max).await,
        Command::Ranks { job } => show::ranks(around, job).await,
        Command::Cost { job } => show::cost(around, job).await,
    }
}
