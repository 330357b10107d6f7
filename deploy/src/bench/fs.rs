//! Sequential and random I/O through the mount.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Figure, Scratch, cpu::Meter, on_threads};
use crate::{bytes::ByteSize, own::Own};

const MIB: u64 = 1 << 20;
const GIB: f64 = (1_u64 << 30) as f64;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Bytes written, then read, in each of the sequential runs.
    #[arg(long, default_value = "1GiB")]
    size: ByteSize,
    /// Streams, each with its own file.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Seconds of random 4 KiB reads.
    #[arg(long, default_value_t = 5)]
    random_s: u64,
    /// Random reads in flight.
    #[arg(long, default_value_t = 16)]
    depth: usize,
}

pub(super) fn run(own: &Own, args: &Args) -> Result<Vec<Figure>> {
    let scratch = Scratch::on_mount(own)?;
    let each = (args.size.0 / args.streams.max(1) as u64).next_multiple_of(MIB);
    let total = each * args.streams as u64;
    let gib = total as f64 / GIB;
    let path = |stream: usize| scratch.path.join(format!("stream-{stream}"));
    let mut figures = Vec::new();

    let meter = Meter::start(own)?;
    on_threads(args.streams, |stream| write(&path(stream), each))?;
    let cost = meter.stop()?;
    figures.push(Figure::new(
        "sequential write, fsync at the end",
        total as f64 / MIB as f64 / cost.wall_s,
        "MiB/s",
    ));
    figures.push(Figure::new("sequential write, all processes", cost.cpu_s / gib, "CPU s/GiB"));

    let meter = Meter::start(own)?;
    on_threads(args.streams, |stream| read(&path(stream), each))?;
    let cost = meter.stop()?;
    figures.push(Figure::new(
        "sequential read, 1 MiB direct",
        total as f64 / MIB as f64 / cost.wall_s,
        "MiB/s",
    ));
    figures.push(Figure::new("sequential read, all processes", cost.cpu_s / gib, "CPU s/GiB"));

    let meter = Meter::start(own)?;
    let reads = AtomicU64::new(0);
    let until = Instant::now() + Duration::from_secs(args.random_s);
    on_threads(args.depth, |thread| {
        random(&path(thread % args.streams), thread, each, until, &reads)
    })?;
    let cost = meter.stop()?;
    let reads = reads.into_inner().max(1) as f64;
    figures.push(Figure::new("random read, 4 KiB direct", reads / cost.wall_s, "1/s"));
    figures.push(Figure::new(
        "random read, all processes",
        cost.cpu_s * 1e6 / reads,
        "CPU us each",
    ));
    Ok(figures)
}

/// Memory that direct I/O accepts.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Self {
        let bytes = vec![0x5a; length + 4096];
        let start = bytes.as_ptr().align_offset(4096);
        Self { bytes, start, length }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

fn write(path: &Path, size: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut buffer = Aligned::new(MIB as usize);
    for at in (0..size).step_by(MIB as usize) {
        // Each block differs, so that nothing below can share them.
        buffer.get()[..8].copy_from_slice(&at.to_le_bytes());
        file.write_all_at(buffer.get(), at).with_context(|| format!("write {}", path.display()))?;
    }
    file.sync_all().with_context(|| format!("sync {}", path.display()))
}

fn open_direct(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32)
        .open(path)
        .with_context(|| format!("open {} for direct reads", path.display()))
}

fn read(path: &Path, size: u64) -> Result<()> {
    let file = open_direct(path)?;
    let mut buffer = Aligned::new(MIB as usize);
    for at in (0..size).step_by(MIB as usize) {
        file.read_exact_at(buffer.get(), at).with_context(|| format!("read {}", path.display()))?;
    }
    Ok(())
}

fn random(path: &Path, seed: usize, size: u64, until: Instant, reads: &AtomicU64) -> Result<()> {
    let file = open_direct(path)?;
    let mut buffer = Aligned::new(4096);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed as u64 + 1);
    while Instant::now() < until {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = state % (size / 4096) * 4096;
        file.read_exact_at(buffer.get(), at).with_context(|| format!("read {}", path.display()))?;
        reads.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
