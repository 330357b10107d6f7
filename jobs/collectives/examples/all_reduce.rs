//! How fast ranks of one machine sum: `cargo run --release -p ff2-collectives --example all_reduce [RANKS [MIB]]`.
//!
//! Prints GiB of numbers a second (the size of one rank's numbers over the time of the sum), and beside it what the
//! same bytes cost when memory only copies them, and when plain TCP carries them from one thread to another. Each rank
//! is a process.

#![allow(clippy::print_stdout, reason = "a figure for people")]

mod ranks;

use std::{
    env,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
};

use ff2_collectives::Communicator;
use ranks::{Outcome, start};

const ROUNDS: u32 = 5;

fn main() -> Outcome<()> {
    let mut arguments = env::args().skip(1);
    let ranks: usize = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let mib: usize = arguments.next().map_or(Ok(64), |text| text.parse())?;
    if env::var_os("RANK").is_some() {
        return rank(mib);
    }
    println!("{ranks} ranks, {mib} MiB");
    println!("memory copy  {:6.2} GiB/s", copy(mib));
    println!("plain TCP    {:6.2} GiB/s", tcp(mib)?);
    start(ranks, &[ranks, mib])
}

fn gib_s(mib: usize, begun: Instant) -> f64 {
    mib as f64 / 1024.0 * f64::from(ROUNDS) / begun.elapsed().as_secs_f64()
}

fn copy(mib: usize) -> f64 {
    let from = vec![1.0f32; mib << 18];
    let mut to = vec![0.0f32; mib << 18];
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        std::hint::black_box(&mut to).copy_from_slice(std::hint::black_box(&from));
    }
    gib_s(mib, begun)
}

fn tcp(mib: usize) -> Outcome<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = thread::spawn(move || -> Outcome<()> {
        let bytes = vec![1u8; mib << 20];
        let mut stream = TcpStream::connect(address)?;
        for _ in 0..ROUNDS {
            stream.write_all(&bytes)?;
        }
        Ok(())
    });
    let mut stream = listener.accept()?.0;
    let mut bytes = vec![0u8; mib << 20];
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        stream.read_exact(&mut bytes)?;
    }
    let found = gib_s(mib, begun);
    sender.join().map_err(|_| "the sender panicked")??;
    Ok(found)
}

fn rank(mib: usize) -> Outcome<()> {
    let all = Communicator::from_env()?;
    let (rank, ranks) = (all.rank(), all.ranks());
    let mut numbers = vec![1.0f32; mib << 18];
    let parts: Vec<usize> = (0..ranks).map(|_| numbers.len() / ranks).collect();
    numbers.truncate(parts.iter().sum());
    // Once without a clock: connections and memory are made.
    numbers = all.all_reduce(numbers).wait()?;
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        numbers = all.all_reduce(numbers).wait()?;
    }
    let reduce = gib_s(mib, begun);
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        let part = all.reduce_scatter(numbers, &parts)?.wait()?;
        numbers = all.all_gather(part, &parts)?.wait()?;
    }
    let scatter = gib_s(mib, begun);
    let begun = Instant::now();
    for _ in 0..1000 {
        all.barrier().wait()?;
    }
    let barrier = begun.elapsed().as_secs_f64() * 1e3;
    if rank == 0 {
        println!("all-reduce   {reduce:6.2} GiB/s");
        println!("scatter + gather {scatter:6.2} GiB/s");
        println!("barrier      {barrier:6.0} us");
    }
    Ok(all.close()?)
}
