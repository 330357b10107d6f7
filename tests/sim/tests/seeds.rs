//! A hundred seeds in every run of the tests. All must hold, and together they must take every rare path
//! that the cores mark: a path that no seed takes is one that no fault is tried on.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use ff2_sim::{
    Seen, Verdict,
    marks::{COUNTED, Mark, Reached},
    run,
};

const SEEDS: u64 = 100;

/// Paths that these seeds do not take: moments of a millisecond in the life of a leader, a joining server or a
/// repair, and a chain whose one member that holds a chunk comes back behind one that does not. Named seeds
/// or unit tests go there.
const TOO_RARE: [Mark; 6] = [
    Mark::DroppedTaken,
    Mark::ResyncGivesWay,
    Mark::JointLeft,
    Mark::KnownByDisk,
    Mark::CopyLeftBehind,
    Mark::BaseMissing,
];

fn must_hold(verdict: &Verdict) {
    println!("{verdict}");
    assert!(
        verdict.problems.is_empty(),
        "{verdict}\n{}\n{}\nreplay: cargo xtask sim --seed {}",
        verdict.log.join("\n"),
        verdict.problems.join("\n"),
        verdict.seed
    );
}

#[test]
fn a_hundred_seeds_hold_and_take_every_rare_path() {
    let (next, reached) = (AtomicU64::new(0), Mutex::new(Reached::default()));
    let seen = Mutex::new(BTreeSet::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return;
            }
            let verdict = run(seed);
            must_hold(&verdict);
            reached.lock().unwrap().add(&verdict.marks);
            seen.lock().unwrap().extend(verdict.seen);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let seen = seen.into_inner().unwrap();
    assert!(Seen::ALL.iter().all(|duty| seen.contains(duty)), "these were done: {seen:?}");
    if COUNTED {
        let mut never = reached.into_inner().unwrap().never();
        never.retain(|mark| !TOO_RARE.contains(mark));
        assert!(never.is_empty(), "no seed took these paths: {never:?}");
    }
}

/// The same seed twice, event for event: otherwise no failure could be replayed.
#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in [3, 14, 15] {
        let (one, two) = (run(seed), run(seed));
        assert_eq!((one.hash, one.events), (two.hash, two.events), "seed {seed}");
        assert_eq!(one.marks, two.marks, "seed {seed}");
    }
}
