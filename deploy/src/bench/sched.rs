//! The scheduler: how fast its core decides, and how many submissions a second its replicas make durable.

mod decisions;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ff2_group::{Group, probe::Probe};
use ff2_sched_core::Config;
use ff2_sched_machine::{Answer, Command, Fact, Joined, SchedMachine, Submission};

use super::{Figure, at_least_one, tell};
use crate::stop::Stop;

/// As many as a batch script of a large site has.
const ORDER_BYTES: usize = 2_048;
const NODES: u32 = 1_250;
const PER_LEAF: u32 = 15;
const GPUS: u32 = 8;
const POLL: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Nearly all jobs have one GPU or two, so that thousands run.
    #[arg(long)]
    small: bool,
    /// Jobs that are submitted.
    #[arg(long, default_value_t = 20_000, value_parser = at_least_one())]
    submissions: usize,
    /// Users who submit one job after the other.
    #[arg(long, default_value_t = 64, value_parser = at_least_one())]
    clients: usize,
    /// A folder on the disk to measure [default: the cluster's folder]
    #[arg(long)]
    folder: Option<PathBuf>,
}

pub(super) fn run(dir: &Path, args: &Args, stop: &Stop) -> Result<Vec<Figure>> {
    tell("decisions of the scheduler's core");
    let mut figures = decisions::run(args.small, stop)?;
    tell("submissions to three replicas");
    let below = args.folder.as_deref().unwrap_or(dir);
    std::fs::create_dir_all(below).with_context(|| format!("create {}", below.display()))?;
    let folder = tempfile::Builder::new()
        .prefix("bench-sched-")
        .tempdir_in(below)
        .with_context(|| format!("make a folder in {}", below.display()))?;
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rate = tokio.block_on(async {
        let stopped = async {
            while stop.check().is_ok() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            rate = Box::pin(submissions(folder.path(), args)) => rate,
            () = stopped => stop.check().map(|()| 0.0),
        }
    })?;
    let name = format!("submissions, durable on 3 replicas, {} clients", args.clients);
    figures.push(Figure::new("submissions", name, rate, "1/s"));
    Ok(figures)
}

/// How many a second, with a cluster full of jobs beside.
async fn submissions(folder: &Path, args: &Args) -> Result<f64> {
    let probe = Probe::start(folder, || SchedMachine::new(Config::default())).await?;
    for node in 0..NODES {
        let leaf = node / PER_LEAF;
        let joined = Joined {
            name: format!("node{node}"),
            zone: format!("zone{}", leaf / 42),
            pod: String::new(),
            leaf: format!("leaf{leaf}"),
            gpus: GPUS,
            cpus: 0,
            memory: 0,
            host: String::new(),
        };
        propose(probe.leader(), Fact::Joined(joined)).await?;
    }
    let (each, small) = (args.submissions.div_ceil(args.clients), args.small);
    let order: Arc<str> = "#".repeat(ORDER_BYTES).into();
    let begun = Instant::now();
    let clients = (0..args.clients).map(|client| {
        let (group, order) = (probe.leader().clone(), order.clone());
        tokio::spawn(async move {
            let mut random = decisions::Random(client as u64 + 1);
            for n in 0..each {
                let submission = Submission {
                    key: format!("{client}-{n}"),
                    spec: decisions::job(&mut random, small),
                    order: order.to_string(),
                };
                propose(&group, Fact::Submitted(Box::new(submission))).await?;
            }
            anyhow::Ok(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.context("a client")??;
    }
    let took = begun.elapsed().as_secs_f64();
    probe.stop().await;
    Ok((each * args.clients) as f64 / took)
}

async fn propose(group: &Group<SchedMachine>, fact: Fact) -> Result<()> {
    let at_ms = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as u64;
    let answer = group.propose(Command { at_ms, fact, note: String::new() }.encode()).await?;
    let answer = Answer::decode(&answer)?;
    ensure!(!matches!(answer, Answer::Refused { .. }), "{answer:?}");
    Ok(())
}
