//! Whether the simulator finds what is planted: the measure of its worth.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clap::ValueEnum as _;
use ff2_sim::{Mutation, Setting, run_as};

/// Whether each planted error makes one of these seeds fail. Says which is the first.
pub(crate) fn all_found(from: u64, count: u64) -> bool {
    let found = |&mutation: &Mutation| match first_found(mutation, from, count) {
        Some((seed, problem)) => {
            println!("{mutation:?}: found by seed {seed}: {problem}");
            true
        }
        None => {
            println!("{mutation:?}: NOT FOUND by seeds {from} to {}", from + count - 1);
            false
        }
    };
    let all: Vec<bool> = Mutation::value_variants().iter().map(found).collect();
    all.into_iter().all(|found| found)
}

/// The first seed that fails, and how.
fn first_found(mutation: Mutation, from: u64, count: u64) -> Option<(u64, String)> {
    let (next, done) = (AtomicU64::new(from), AtomicBool::new(false));
    let search = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count || done.load(Ordering::Relaxed) {
                return None;
            }
            let verdict = run_as(seed, Setting::of(mutation));
            if let Some(problem) = verdict.problems.first() {
                done.store(true, Ordering::Relaxed);
                return Some((seed, problem.lines().next().unwrap_or_default().to_owned()));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        let found = workers.into_iter().filter_map(|worker| worker.join().ok().flatten());
        found.min_by_key(|(seed, _)| *seed)
    })
}
