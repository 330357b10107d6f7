//! What transfers cost a disk's ring with and without registered buffers, CPU seconds counted.
//!
//! `cargo run --workspace --example disk -- FILE [BYTES] [DEPTH] [SECONDS]`; the file is made anew and
//! removed. The kinds take turns, so that a disk that slows down slows all of them.

use std::{
    fs::File,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ff2_fabric::{Buf, BufPool};
use ff2_storaged::disk::{Disk, ReadPart, WritePart};

const FILE_BYTES: u64 = 1 << 30;
const ROUNDS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Write,
    Read,
}

struct Load {
    disk: Arc<Disk>,
    pool: Arc<BufPool>,
    bytes: usize,
    depth: usize,
    time: Duration,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let file = PathBuf::from(words.next().context("name a file on the disk to measure")?);
    let bytes: usize = words.next().map_or(Ok(1 << 20), |word| word.parse())?;
    let depth: usize = words.next().map_or(Ok(16), |word| word.parse())?;
    let seconds: u64 = words.next().map_or(Ok(3), |word| word.parse())?;
    File::create_new(&file)?.set_len(FILE_BYTES)?;
    let disk = Arc::new(Disk::open(&file, depth as u32, true)?);
    std::fs::remove_file(&file)?;
    let pool = BufPool::new(((depth + 1) * bytes.next_power_of_two()) as u64);
    let load = Load { disk, pool, bytes, depth, time: Duration::from_secs(seconds) };
    load.run(Way::Write, true).await?;
    for round in 0..ROUNDS {
        for (way, registered) in
            [(Way::Write, false), (Way::Write, true), (Way::Read, false), (Way::Read, true)]
        {
            let (rate, cpu) = load.run(way, registered).await?;
            println!(
                "round {round}: {way:?}, registered {registered}: {rate:.0} MiB/s, {cpu:.3} CPU s/GiB"
            );
        }
    }
    Ok(())
}

impl Load {
    /// MiB/s, and CPU seconds of this process for a GiB.
    async fn run(&self, way: Way, registered: bool) -> Result<(f64, f64)> {
        let (before, started) = (cpu_s()?, Instant::now());
        let next = Arc::new(AtomicU64::new(0));
        let mut workers = Vec::new();
        for _ in 0..self.depth {
            let (disk, next, bytes, end) =
                (self.disk.clone(), next.clone(), self.bytes, started + self.time);
            let mut buf = match registered {
                true => self.pool.get(bytes).await,
                false => Buf::unpooled(bytes),
            };
            buf.fill(1);
            workers.push(tokio::spawn(async move {
                while Instant::now() < end {
                    let place = next.fetch_add(1, Relaxed) % (FILE_BYTES / bytes as u64);
                    let position = place * bytes as u64;
                    if way == Way::Read {
                        let part = ReadPart { position, at: 0, length: bytes };
                        buf = disk.read(buf, vec![part]).await?;
                    } else {
                        let shared = buf.freeze();
                        disk.write(vec![WritePart { position, bytes: shared.clone() }]).await?;
                        // The answer comes when the ring has let go of its share.
                        buf = shared.try_into_unique().ok().context("the ring keeps the buffer")?;
                    }
                }
                anyhow::Ok(())
            }));
        }
        for worker in workers {
            worker.await??;
        }
        let moved = (next.load(Relaxed) * self.bytes as u64) as f64 / f64::from(1 << 20);
        let rate = moved / started.elapsed().as_secs_f64();
        Ok((rate, (cpu_s()? - before) / (moved / 1024.0)))
    }
}

/// Of all threads of this process, the kernel's work for them included.
fn cpu_s() -> Result<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}
