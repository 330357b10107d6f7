//! What the kernel interface costs by itself: a file system of one file in memory, read and written
//! directly by a few threads of this process, first over `/dev/fuse` and then over io_uring.
//!
//! `cargo run --release --example bench -- [SECONDS] [EXECUTORS] [THREADS]`. EXECUTORS 0: one for
//! each CPU, pinned. Prints operations a second and CPU time of all threads (load and server, user and
//! kernel) for each.

use std::{
    error::Error,
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use ff2_fabric::{Buf, BufPool, SharedBuf};
use ff2_fuse_kernel::{
    Attr, Entry, Errno, Executors, Filesystem, IoUring, MountOptions, Operation, Options, ROOT,
    Reply, Request, Wanted, Way, WriteMemory, flags, mount, open,
};
use rustix::process::{getegid, geteuid};

const FILE: u64 = 2;
const FILE_BYTES: usize = 16 << 20;
const TTL: Duration = Duration::from_secs(60);

/// One file, whose bytes never change: writes are thrown away.
struct Memory {
    bytes: SharedBuf,
}

impl Memory {
    fn attr(inode: u64) -> Attr {
        let mode = if inode == ROOT { libc::S_IFDIR | 0o755 } else { libc::S_IFREG | 0o644 };
        let size = if inode == ROOT { 0 } else { FILE_BYTES as u64 };
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        Attr { inode, mode, size, nlink: 1, uid, gid, block_bytes: 4096, ..Attr::default() }
    }
}

impl Filesystem for Memory {
    fn request(&self, request: Request) {
        let Request { inode, operation, answer, .. } = request;
        let reply = match operation {
            Operation::Lookup { name } if name == b"file" => {
                let attr = Self::attr(FILE);
                Reply::entry(&Entry { attr, generation: 0, name_ttl: TTL, attr_ttl: TTL })
            }
            Operation::Lookup { .. } => Reply::error(Errno::ENOENT),
            Operation::GetAttr { .. } | Operation::Statx { .. } | Operation::SetAttr(_) => {
                Reply::attr(&Self::attr(inode), TTL)
            }
            Operation::Open { .. } => {
                Reply::opened(1, open::DIRECT_IO | open::PARALLEL_DIRECT_WRITES)
            }
            Operation::Read(read) => {
                let at = usize::try_from(read.offset).unwrap_or(FILE_BYTES).min(FILE_BYTES);
                let end = (at + read.size as usize).min(FILE_BYTES);
                Reply::data(vec![self.bytes.slice(at..end)])
            }
            Operation::Write(write) => Reply::written(write.payload.bytes.len() as u32),
            Operation::Flush { .. } | Operation::Release { .. } => Reply::empty(),
            _ => Reply::error(Errno::ENOSYS),
        };
        answer.send(reply);
    }

    fn forget(&self, _inode: u64, _lookups: u64) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut next = |otherwise| numbers.next().unwrap_or(Ok(otherwise));
    let (seconds, executors, threads) = (next(2)?, next(1)?, next(4)?);
    println!("{:10} {:>14} {:>12} {:>12} {:>9}", "way", "work", "1/s", "CPU us each", "CPU s/GiB");
    for io_uring in [IoUring::No, IoUring::Yes] {
        run(io_uring, executors, threads, Duration::from_secs(seconds as u64))?;
    }
    Ok(())
}

fn run(
    io_uring: IoUring,
    executors: usize,
    threads: usize,
    time: Duration,
) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let pool = BufPool::new(64 << 20);
    let executors = Executors::start("bench", executors)?;
    let options = Options {
        mount: MountOptions {
            mount_point: folder.path().to_owned(),
            name: "bench".into(),
            read_only: false,
            allow_other: false,
        },
        wanted: Wanted {
            flags: flags::ASYNC_READ | flags::ASYNC_DIO | flags::PARALLEL_DIROPS,
            write_bytes_max: 1 << 20,
            read_ahead_bytes: 128 << 10,
            background_max: 128,
        },
        io_uring,
        memory: WriteMemory::new(pool, 32 << 20, 32 << 20),
    };
    let bytes = Buf::unpooled(FILE_BYTES).freeze();
    let mounted = mount(&executors, options, Arc::new(Memory { bytes }))?;
    let path = folder.path().join("file");
    let outcome = (|| {
        for (work, size, writes) in [
            ("read 4 KiB", 4 << 10, false),
            ("read 1 MiB", 1 << 20, false),
            ("write 4 KiB", 4 << 10, true),
            ("write 1 MiB", 1 << 20, true),
        ] {
            let (rate, cpu) = measure(&path, threads, time, size, writes)?;
            let way = if mounted.way == Way::Ring { "io_uring" } else { "/dev/fuse" };
            let per_gib = cpu * (1 << 30) as f64 / size as f64 / 1e6;
            println!("{way:10} {work:>14} {rate:>12.0} {cpu:>12.1} {per_gib:>9.2}");
        }
        Ok(())
    })();
    mounted.unmounter.unmount()?;
    outcome
}

/// Operations a second, and microseconds of CPU time for each.
fn measure(
    path: &Path,
    threads: usize,
    time: Duration,
    size: usize,
    writes: bool,
) -> Result<(f64, f64), Box<dyn Error>> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)?;
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (began, cpu_before) = (Instant::now(), cpu_time());
    thread::scope(|scope| {
        for seed in 0..threads {
            let (file, done, stop) = (&file, &done, &stop);
            scope.spawn(move || load(file, size, writes, seed as u64, done, stop));
        }
        thread::sleep(time);
        stop.store(true, Relaxed);
    });
    let (took, cpu) = (began.elapsed(), cpu_time() - cpu_before);
    let count = done.load(Relaxed) as f64;
    Ok((count / took.as_secs_f64(), cpu.as_secs_f64() * 1e6 / count.max(1.0)))
}

fn load(file: &File, size: usize, writes: bool, seed: u64, done: &AtomicU64, stop: &AtomicBool) {
    let mut buffer = Buf::unpooled(size);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while !stop.load(Relaxed) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let offset = (state >> 33) % (FILE_BYTES / size) as u64 * size as u64;
        let outcome =
            if writes { file.write_at(&buffer, offset) } else { file.read_at(&mut buffer, offset) };
        assert_eq!(outcome.expect("the file can be used"), size);
        done.fetch_add(1, Relaxed);
    }
}

/// Of this process.
fn cpu_time() -> Duration {
    // SAFETY: a structure of numbers, which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}
