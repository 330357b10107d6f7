//! Bytes between two processes of this host by each transport, beside programs that do nothing else: iperf3 for TCP,
//! perftest for RDMA.
//!
//! READ-like: the client asks and the server's reply brings the bytes, which is a WRITE by RDMA. WRITE-like: the
//! request brings them, and the server takes them by READ. CPU seconds are those of both processes.

mod beside;
mod client;
mod server;

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use client::Side;
use ff2_fabric::{
    ClusterKey, Rdma, Tuning,
    counters::Transport as Carrier,
    limits::RDMA_FIRST_FRAME_MAX,
    rdma::{RdmaConfig, Subnet},
};

use super::{Figure, at_least_one, cpu, tell};
use crate::{bytes::ByteSize, stop::Stop};

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// By what the bytes go [default: tcp and shm, and rdma where there is a device]
    #[arg(long, value_enum)]
    transport: Vec<Transport>,
    /// Bytes of a call.
    #[arg(long, default_values = ["4KiB", "64KiB", "1MiB"], value_parser = a_call)]
    size: Vec<ByteSize>,
    /// Calls in flight for bandwidth.
    #[arg(long, default_value_t = 16, value_parser = at_least_one())]
    depth: usize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 2, value_parser = at_least_one())]
    seconds: usize,
    /// Turns of ours and of the other program, where there is one; their middles count.
    #[arg(long, default_value_t = 5, value_parser = at_least_one())]
    turns: usize,
    /// RDMA leaves from an address within it.
    #[arg(long, default_value = "0.0.0.0/0")]
    subnet: Subnet,
    /// Is the server, with this cluster key, until its input ends.
    #[arg(long, hide = true)]
    serve: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Transport {
    Tcp,
    Rdma,
    Shm,
}

impl Transport {
    fn carrier(self) -> Carrier {
        match self {
            Self::Tcp => Carrier::Tcp,
            Self::Rdma => Carrier::Rdma,
            Self::Shm => Carrier::Shm,
        }
    }

    /// As [`clap::ValueEnum`] reads it.
    fn name(self) -> &'static str {
        self.carrier().name()
    }
}

fn a_call(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    let most = ff2_fabric::limits::BULK_BYTES_MAX as u64;
    match (1..=most).contains(&size.0) {
        true => Ok(size),
        false => Err(format!("{size}: a call brings 1 to {most} bytes")),
    }
}

/// What both ends are made of.
struct Setting {
    key: ClusterKey,
    rdma: Option<Arc<Rdma>>,
    tuning: Tuning,
}

const CLUSTER: &str = "bench";
/// An emulated processor is slow to connect.
const PATIENCE: u32 = 20;

impl Setting {
    fn new(key: ClusterKey, transport: Transport, subnet: Subnet) -> Result<Self> {
        let rdma = || {
            let subnets = vec![subnet];
            Rdma::open(RdmaConfig { demanded: true, subnets, ..RdmaConfig::default() })
        };
        let rdma = (transport == Transport::Rdma).then(rdma).transpose().context("use RDMA")?;
        let first_frame_max = RDMA_FIRST_FRAME_MAX * PATIENCE;
        let tuning = Tuning {
            shared_memory: transport == Transport::Shm,
            first_frame_max,
            connect_timeout: 2 * first_frame_max,
            ..Tuning::default()
        };
        Ok(Self { key, rdma, tuning })
    }
}

/// Runs as the server; see [`Args::serve`].
pub(super) fn is_server(args: &Args) -> Result<bool> {
    let Some(path) = &args.serve else { return Ok(false) };
    let [transport] = args.transport[..] else { anyhow::bail!("a server has one transport") };
    let largest = args.size.iter().map(|size| size.0).max().unwrap_or(1);
    let setting = Setting::new(ClusterKey::load(path)?, transport, args.subnet)?;
    runtime()?.block_on(server::run(setting, usize::try_from(largest)?))?;
    Ok(true)
}

/// Half of the cores are the other process's.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism()?.get();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads((cores / 2).max(1)).enable_all().build()?)
}

pub(super) fn run(args: &Args, stop: &Stop) -> Result<Vec<Figure>> {
    let transports = match &args.transport[..] {
        [] if ff2_verbs::available().is_ok_and(|devices| !devices.is_empty()) => {
            vec![Transport::Tcp, Transport::Shm, Transport::Rdma]
        }
        [] => vec![Transport::Tcp, Transport::Shm],
        given => given.to_vec(),
    };
    let folder = tempfile::tempdir().context("make a folder for the key")?;
    let mut figures = Vec::new();
    for transport in transports {
        figures.extend(over(transport, args, folder.path(), stop)?);
    }
    Ok(figures)
}

fn over(transport: Transport, args: &Args, folder: &Path, stop: &Stop) -> Result<Vec<Figure>> {
    let key = ClusterKey::generate()?;
    let path = folder.join(format!("{}.key", transport.name()));
    key.save(&path)?;
    let setting = Setting::new(key, transport, args.subnet)?;
    let server = Served::start(transport, args, &path)?;
    let processes = cpu::Processes::with("server", server.child.id());
    let runtime = runtime()?;
    let client = client::Client::new(setting, &server.address);
    let mut figures = Vec::new();
    for size in &args.size {
        let bytes = usize::try_from(size.0)?;
        for side in [Side::Read, Side::Write] {
            stop.check()?;
            let name = format!("{} {size} {}", transport.name(), side.name());
            tell(&name);
            let time = Duration::from_secs(args.seconds as u64);
            // Connections are made, and buffers touched.
            runtime.block_on(client.stream(side, bytes, args.depth, time / 4))?;
            let turn = || -> Result<(f64, Figure)> {
                let meter = cpu::Meter::start(&processes)?;
                let calls = runtime.block_on(client.stream(side, bytes, args.depth, time))?;
                let cost = meter.stop()?;
                let figure = Figure::moved("net", &name, calls * size.0, &cost);
                Ok((figure.value, figure))
            };
            let other = beside::Program::of(transport, side, size.0, args.subnet);
            match other {
                Some(program) => figures.extend(turns(args, &program, turn, stop)?),
                None => figures.push(turn()?.1),
            }
            let mut times = runtime.block_on(client.one_by_one(side, bytes, time / 2))?;
            times.sort();
            for (what, share) in [("p50", 50), ("p99", 99)] {
                let at = times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
                let us = at.context("no call was answered")?.as_secs_f64() * 1e6;
                figures.push(Figure::new("net-time", format!("{name}, {what}"), us, "us"));
            }
        }
    }
    client.ensure_carried(transport.carrier())?;
    Ok(figures)
}

/// One after the other on the same machine in the same minutes; of each the middle, and how they stand to each other.
fn turns(
    args: &Args,
    program: &beside::Program,
    ours: impl Fn() -> Result<(f64, Figure)>,
    stop: &Stop,
) -> Result<Vec<Figure>> {
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..args.turns {
        stop.check()?;
        mine.push(ours()?);
        theirs.push(program.run(mine[0].0, args.seconds, stop)?);
    }
    mine.sort_by(|a, b| a.0.total_cmp(&b.0));
    theirs.sort_by(f64::total_cmp);
    let (rate, figure) = mine.swap_remove(args.turns / 2);
    let other = theirs[args.turns / 2];
    let ratio = format!("{}, as a share of {}", figure.name, program.name());
    let other = [
        Figure::new("net", format!("{}, by {}", figure.name, program.name()), other, "MiB/s"),
        Figure::new("net-ratio", ratio, rate / other, ""),
    ];
    Ok(std::iter::once(figure).chain(other).collect())
}

/// The server's process, which ends with its input.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(transport: Transport, args: &Args, key: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.args(["bench", "net", "--transport", transport.name()]);
        command.arg("--subnet").arg(args.subnet.to_string()).arg("--serve").arg(key);
        for size in &args.size {
            command.arg("--size").arg(size.0.to_string());
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut served = Self { child: child.context("start the server")?, address: String::new() };
        let said = served.child.stdout.take().context("the server has an output")?;
        BufReader::new(said).read_line(&mut served.address).context("hear from the server")?;
        served.address.truncate(served.address.trim_end().len());
        ensure!(!served.address.is_empty(), "the server ended without a word");
        Ok(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(problem) = self.child.wait() {
            tell(&format!("the server does not end: {problem}"));
        }
    }
}

/// Says where it serves, on standard output.
fn announce(address: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{address}")?;
    Ok(out.flush()?)
}
