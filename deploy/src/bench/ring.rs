//! Reads by a user ring, beside those of the disk.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ff2_ring::{Op, Options, Region, Ring, RingFile};

use super::{
    Figure, Mounted, Place,
    disk::{self, STREAM_DEPTH},
    fs::Places,
    tell,
};

pub(super) type Args = disk::Args;

const MIB: usize = 1 << 20;
const RANDOM_BYTES: usize = 4096;

pub(super) fn run(mounted: &Mounted, dir: &Path, args: &Args) -> Result<Vec<Figure>> {
    let mut figures = {
        let bench = Bench::new(mounted.place()?, args)?;
        vec![bench.stream(args)?, bench.random(args)?]
    };
    figures.extend(disk::reads(dir, args, &mounted.stop)?);
    Ok(figures)
}

struct Bench {
    place: Place,
    file: File,
    /// Whole MiB.
    bytes: u64,
}

/// A ring whose operations each have a slot of a region.
struct Slots {
    ring: Ring,
    region: Region,
    file: RingFile,
    each: usize,
}

impl Bench {
    /// Writes the file that is read.
    fn new(place: Place, args: &Args) -> Result<Self> {
        tell("write the file");
        let path = place.scratch.path.join("ring");
        let bytes = args.size.0.next_multiple_of(MIB as u64);
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.with_context(|| format!("create {}", path.display()))?;
        let mut block = vec![0x5a; MIB];
        for at in (0..bytes).step_by(MIB) {
            place.stop.check()?;
            // Each block differs, so that nothing below can share them.
            block[..8].copy_from_slice(&at.to_le_bytes());
            file.write_all_at(&block, at).context("write")?;
        }
        file.sync_all().context("sync")?;
        Ok(Self { place, file, bytes })
    }

    /// All of the file, in order.
    fn stream(&self, args: &Args) -> Result<Figure> {
        let name = format!("ring: sequential read, 1 MiB, depth {STREAM_DEPTH}");
        tell(&name);
        let mut slots = Slots::new(self, STREAM_DEPTH, MIB)?;
        let time = Duration::from_secs(args.seconds as u64);
        let (mut at, mut moved) = (0, 0);
        let cost = self.place.measure(|| {
            let until = Instant::now() + time;
            moved = slots.keep_busy(STREAM_DEPTH, &self.place, || {
                let next = at;
                at = (at + MIB as u64) % self.bytes;
                (Instant::now() < until).then_some(next)
            })?;
            Ok(())
        })?;
        Ok(Figure::moved("seq-read", name, moved * MIB as u64, &cost))
    }

    fn random(&self, args: &Args) -> Result<Figure> {
        let name = format!("ring: random read, 4 KiB, depth {}", args.depth);
        tell(&name);
        let mut slots = Slots::new(self, args.depth, RANDOM_BYTES)?;
        let mut places = Places::new(0, self.bytes / RANDOM_BYTES as u64);
        let time = Duration::from_secs(args.seconds as u64);
        let mut done = 0;
        let cost = self.place.measure(|| {
            let until = Instant::now() + time;
            done = slots.keep_busy(args.depth, &self.place, || {
                (Instant::now() < until).then(|| places.next() * RANDOM_BYTES as u64)
            })?;
            Ok(())
        })?;
        Ok(Figure::done("rand-read", name, done, &cost))
    }
}

impl Slots {
    fn new(bench: &Bench, depth: usize, each: usize) -> Result<Self> {
        let entries = u32::try_from(depth).unwrap_or(u32::MAX);
        let mut ring = Ring::connect(&bench.place.scratch.path, &Options { entries })?;
        let region = ring.region(depth * each)?;
        let file = ring.file(&bench.file)?;
        Ok(Self { ring, region, file, each })
    }

    /// Reads at the offsets that come, `depth` at a time, until none comes. Returns how many.
    fn keep_busy(
        &mut self,
        depth: usize,
        place: &Place,
        mut next: impl FnMut() -> Option<u64>,
    ) -> Result<u64> {
        for slot in 0..depth {
            self.push(slot, next())?;
        }
        let mut done = 0;
        while self.ring.outstanding() > 0 {
            place.stop.check()?;
            for completion in self.ring.reap(1, Some(Duration::from_secs(1)))? {
                let bytes = completion.result().context("read")?;
                ensure!(bytes == self.each, "{bytes} bytes were read instead of {}", self.each);
                done += 1;
                self.push(completion.user_data() as usize, next())?;
            }
        }
        Ok(done)
    }

    fn push(&mut self, slot: usize, offset: Option<u64>) -> Result<()> {
        let Some(offset) = offset else { return Ok(()) };
        let into = slot * self.each..(slot + 1) * self.each;
        let op = Op::read(self.file, offset, &self.region, into)?;
        Ok(self.ring.push(op.user_data(slot as u64))?)
    }
}
