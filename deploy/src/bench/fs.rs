//! Sequential and random I/O through the mount.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::fs::{Advice, OFlags, fadvise};

use super::{Figure, Mounted, Place, at_least_a_mib, at_least_one, on_threads, tell};
use crate::bytes::ByteSize;

const MIB: u64 = 1 << 20;
const RANDOM_BYTES: u64 = 4096;

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Bytes of each sequential run, over all streams.
    #[arg(long, default_value = "1GiB", value_parser = at_least_a_mib)]
    pub(super) size: ByteSize,
    /// Streams, each with its own file.
    #[arg(long, default_value_t = 4, value_parser = at_least_one())]
    pub(super) streams: usize,
    /// Seconds of each random run.
    #[arg(long, default_value_t = 5, value_parser = at_least_one())]
    pub(super) seconds: usize,
    /// Random reads and writes in flight.
    #[arg(long, default_value_t = 16, value_parser = at_least_one())]
    pub(super) depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Cached,
    Direct,
}

impl Access {
    fn name(self) -> &'static str {
        match self {
            Self::Cached => "page cache",
            Self::Direct => "direct",
        }
    }

    fn open(self, path: &Path) -> Result<File> {
        let flags = if self == Self::Direct { OFlags::DIRECT } else { OFlags::empty() };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).custom_flags(flags.bits().cast_signed());
        options.open(path).with_context(|| format!("open {}", path.display()))
    }
}

pub(super) fn run(mounted: &Mounted, args: &Args) -> Result<Vec<Figure>> {
    let bench = Bench::new(mounted.place()?, args);
    let mut figures = vec![bench.write(Access::Cached)?];
    // Space for the next, and nothing in the page cache.
    bench.remove_all()?;
    figures.push(bench.write(Access::Direct)?);
    figures.push(bench.read(Access::Cached)?);
    figures.push(bench.read(Access::Direct)?);
    figures.extend(bench.random("rand-read", "read")?);
    figures.extend(bench.random("rand-write", "write")?);
    Ok(figures)
}

struct Bench<'a> {
    place: Place,
    args: &'a Args,
    /// Bytes of each stream's file.
    each: u64,
}

impl<'a> Bench<'a> {
    fn new(place: Place, args: &'a Args) -> Self {
        let each = (args.size.0 / args.streams as u64).max(1).next_multiple_of(MIB);
        Self { place, args, each }
    }

    fn path(&self, stream: usize) -> PathBuf {
        self.place.scratch.path.join(format!("stream-{stream}"))
    }

    fn moved(&self) -> u64 {
        self.each * self.args.streams as u64
    }

    fn name(&self, what: &str, how: &str) -> String {
        let name = format!("sequential {what}, 1 MiB, {how}, {} streams", self.args.streams);
        tell(&name);
        name
    }

    fn remove_all(&self) -> Result<()> {
        let remove = |stream| std::fs::remove_file(self.path(stream)).context("remove a stream");
        (0..self.args.streams).try_for_each(remove)
    }

    /// Until all of it is on the disks.
    fn write(&self, access: Access) -> Result<Figure> {
        let name = self.name("write", &format!("{} and fsync", access.name()));
        let cost = self.place.measure(|| {
            on_threads(self.args.streams, |stream| {
                let file = access.open(&self.path(stream))?;
                self.blocks(|buffer, at| {
                    // Each block differs, so that nothing below can share them.
                    buffer[..8].copy_from_slice(&at.to_le_bytes());
                    file.write_all_at(buffer, at).context("write")
                })?;
                file.sync_all().context("sync")
            })
        })?;
        Ok(Figure::moved("seq-write", name, self.moved(), &cost))
    }

    fn read(&self, access: Access) -> Result<Figure> {
        let name = self.name("read", access.name());
        let cost = self.place.measure(|| {
            on_threads(self.args.streams, |stream| {
                let file = access.open(&self.path(stream))?;
                fadvise(&file, 0, None, Advice::DontNeed).context("empty the page cache")?;
                self.blocks(|buffer, at| file.read_exact_at(buffer, at).context("read"))
            })
        })?;
        Ok(Figure::moved("seq-read", name, self.moved(), &cost))
    }

    /// Calls `io` for each MiB of a stream.
    fn blocks(&self, io: impl Fn(&mut [u8], u64) -> Result<()>) -> Result<()> {
        let mut buffer = Aligned::new(MIB as usize);
        (0..self.each).step_by(MIB as usize).try_for_each(|at| {
            self.place.stop.check()?;
            io(buffer.get(), at)
        })
    }

    /// Of writes also what they cost the disks.
    fn random(&self, work: &'static str, what: &str) -> Result<Vec<Figure>> {
        let name = format!("random {what}, 4 KiB direct, depth {}", self.args.depth);
        tell(&name);
        let done = AtomicU64::new(0);
        let time = Duration::from_secs(self.args.seconds as u64);
        let cost = self.place.measure(|| {
            let until = Instant::now() + time;
            on_threads(self.args.depth, |thread| {
                let file = Access::Direct.open(&self.path(thread % self.args.streams))?;
                let mut buffer = Aligned::new(RANDOM_BYTES as usize);
                let mut places = Places::new(thread as u64, self.each / RANDOM_BYTES);
                while Instant::now() < until {
                    self.place.stop.check()?;
                    let at = places.next() * RANDOM_BYTES;
                    match what {
                        "read" => file.read_exact_at(buffer.get(), at),
                        _ => file.write_all_at(buffer.get(), at),
                    }
                    .with_context(|| format!("{what} at {at}"))?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })?;
        let done = done.into_inner();
        let mut figures = vec![Figure::done(work, name, done, &cost)];
        if what == "write" {
            let each = cost.written as f64 / 1024.0 / done.max(1) as f64;
            figures.push(Figure::new("write-cost", "each written to disks", each, "KiB"));
        }
        Ok(figures)
    }
}

/// Random places: xorshift, since quality does not matter here, and the same places in every run do.
pub(super) struct Places {
    state: u64,
    count: u64,
}

impl Places {
    pub(super) fn new(seed: u64, count: u64) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed + 1), count }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % self.count
    }
}

/// Memory that direct I/O accepts.
pub(super) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    pub(super) fn new(length: usize) -> Self {
        let bytes = vec![0x5a; length + 4096];
        let start = bytes.as_ptr().align_offset(4096);
        Self { bytes, start, length }
    }

    pub(super) fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}
