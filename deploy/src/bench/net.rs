//! Bytes between two processes of this host by each transport, beside programs that do nothing else: iperf3 for TCP,
//! perftest for RDMA.
//!
//! READ-like: the client asks and the server's reply brings the bytes, which is a WRITE by RDMA. WRITE-like: the
//! request brings them, and the server takes them by READ. Neither ff2 nor the other programs checksum them here: the
//! checksums of files are the business of who stores them.

mod beside;
mod client;
mod report;
mod server;

use std::{path::Path, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use beside::Program;
use clap::ValueEnum;
use client::{Client, Side};
use ff2_fabric::{
    ClusterKey, Rdma, Tuning,
    counters::Transport as Carrier,
    limits::RDMA_FIRST_FRAME_MAX,
    rdma::{RdmaConfig, Subnet},
};
use report::{Beside, Rate, Row};
use server::Served;

use super::{at_least_one, cpu, tell};
use crate::{bytes::ByteSize, output::Output, stop::Stop};

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// By what the bytes go [default: tcp and shm, and rdma where there is a device]
    #[arg(long, value_enum)]
    transport: Vec<Transport>,
    /// Which way they go.
    #[arg(long, value_enum, default_values = ["read", "write"])]
    side: Vec<Side>,
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

pub(super) fn run(args: &Args, output: Output, stop: &Stop) -> Result<()> {
    let transports = match &args.transport[..] {
        [] if ff2_verbs::available().is_ok_and(|devices| !devices.is_empty()) => {
            vec![Transport::Tcp, Transport::Shm, Transport::Rdma]
        }
        [] => vec![Transport::Tcp, Transport::Shm],
        given => given.to_vec(),
    };
    let folder = tempfile::tempdir().context("make a folder for the key")?;
    let mut rows = Vec::new();
    for transport in transports {
        rows.extend(over(transport, args, folder.path(), stop)?);
    }
    report::print(&rows, output)
}

fn over(transport: Transport, args: &Args, folder: &Path, stop: &Stop) -> Result<Vec<Row>> {
    let key = ClusterKey::generate()?;
    let path = folder.join(format!("{}.key", transport.name()));
    key.save(&path)?;
    let setting = Setting::new(key, transport, args.subnet)?;
    let server = Served::start(transport, args, &path)?;
    let bench = Bench {
        transport,
        args,
        stop,
        processes: cpu::Processes::with("server", server.pid()),
        client: Client::new(setting, server.address()),
        runtime: runtime()?,
    };
    let mut rows = Vec::new();
    for size in &args.size {
        for side in &args.side {
            rows.push(bench.row(*side, *size)?);
        }
    }
    bench.client.ensure_carried(transport.carrier())?;
    Ok(rows)
}

/// By one transport, with a server that lives as long.
struct Bench<'a> {
    transport: Transport,
    args: &'a Args,
    stop: &'a Stop,
    processes: cpu::Processes,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Bench<'_> {
    /// Ours and the other program's one after the other, on the same machine in the same minutes.
    fn row(&self, side: Side, size: ByteSize) -> Result<Row> {
        let Self { transport, args, stop, client, runtime, .. } = self;
        tell(&format!("{} {size} {}", transport.name(), side.name()));
        let bytes = usize::try_from(size.0)?;
        let time = Duration::from_secs(args.seconds as u64);
        // Connections are made, and buffers touched.
        runtime.block_on(client.stream(side, bytes, args.depth, time / 4))?;
        let program = Program::of(*transport, side, size.0, args.subnet);
        let turns = if program.is_some() { args.turns } else { 1 };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..turns {
            stop.check()?;
            ours.push(self.ours(side, bytes, time)?);
            if let Some(program) = &program {
                let like = ours[0].mib_per_s;
                theirs.push(self.machine(|| program.run(like, args.seconds, stop))?);
            }
        }
        let ours = Rate::middle(ours);
        let beside =
            program.map(|program| Beside::new(program.name(), Rate::middle(theirs), &ours));
        let mut times = runtime.block_on(client.one_by_one(side, bytes, time / 2))?;
        times.sort();
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        Ok(Row {
            transport: transport.name(),
            side: side.name(),
            bytes: size.0,
            ours,
            p50_us: us(at(50)),
            p99_us: us(at(99)),
            beside,
        })
    }

    fn ours(&self, side: Side, bytes: usize, time: Duration) -> Result<Rate> {
        self.machine(|| {
            let meter = cpu::Meter::start(&self.processes)?;
            let depth = self.args.depth;
            let calls = self.runtime.block_on(self.client.stream(side, bytes, depth, time))?;
            let cost = meter.stop()?;
            Ok(Rate::of(calls * bytes as u64, cost.wall_s, cost.cpu_s))
        })
    }

    /// Soft-RoCE moves bytes in threads of the kernel, which are nobody's. So by RDMA all that the machine did beside
    /// the programs is told too; that is of use where nothing else runs.
    fn machine(&self, run: impl FnOnce() -> Result<Rate>) -> Result<Rate> {
        let before = cpu::of_machine_s()?;
        let rate = run()?;
        let all = cpu::of_machine_s()? - before;
        Ok(if self.transport == Transport::Rdma { rate.with_rest(all) } else { rate })
    }
}
