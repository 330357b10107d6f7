//! `ff2ctl serve`: a model behind one address, as jobs of the scheduler. A router and its replicas are two service
//! jobs; the folder that they share has all that is to be known of the service, so nothing is kept here.

mod folder;
mod list;
mod service;
mod start;
mod stop;
mod wait;

use std::{num::NonZeroU32, path::PathBuf};

use anyhow::Result;

use crate::cli::Surroundings;

#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(flatten)]
    start: Option<Start>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Services that run: where, how many replicas, how much they do
    List,
    /// End a service: what runs is finished first
    Stop { name: String },
}

#[derive(Clone, Debug, clap::Args)]
struct Start {
    /// Folder of the model, on the volume
    model: PathBuf,
    /// Name of the service, and of the model for clients [default: the folder's name]
    #[arg(long)]
    name: Option<String>,
    /// Replicas; with --max-replicas the least, which are never preempted
    #[arg(long, value_name = "N", default_value = "1")]
    replicas: NonZeroU32,
    /// Up to so many while requests wait, where there is room [default: --replicas]
    #[arg(long, value_name = "N")]
    max_replicas: Option<NonZeroU32>,
    /// Routers, each an address of the service, on nodes of their own where there are so many [default: 2 where there
    /// are two nodes]
    #[arg(long, value_name = "N", conflicts_with = "update")]
    routers: Option<NonZeroU32>,
    /// Port of the service, on the nodes of its routers
    #[arg(long, default_value = "8000")]
    port: u16,
    /// Folder that router and replicas share, on the volume [default: services/NAME beside the model's]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Replace the replicas of the service that runs by those of this model, one by one
    #[arg(long)]
    update: bool,
    /// Ask clients for no key
    #[arg(long)]
    open: bool,
    /// Further options of `ff2-serve run`, in one word: "--kv-mib 4096 --threads 8"
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    run_options: String,
    /// Further options of `ff2-serve route`, in one word: "--tls-certificate C.pem --tls-key K.pem"
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    route_options: String,
    /// How long to wait until it serves; 0: not at all
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    wait: u64,
    /// Options of `ff2ctl job submit` for each replica, behind `--`: -G 8 --priority=high
    #[arg(last = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

pub(crate) async fn run(around: &Surroundings, args: Args) -> Result<()> {
    match (args.command, args.start) {
        (Some(Command::List), _) => list::run(around).await,
        (Some(Command::Stop { name }), _) => stop::run(around, &name).await,
        (None, Some(start)) => start::run(around, &start).await,
        (None, None) => anyhow::bail!("name the folder of a model, or `list`, or `stop NAME`"),
    }
}
