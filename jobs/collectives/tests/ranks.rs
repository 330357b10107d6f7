#![allow(clippy::unwrap_used, reason = "a test may panic")]

//! Ranks as threads of this process, each with its own server and connections over loopback.

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{port, ranks, rendezvous};
use ff2_collectives::{CollectiveError, Communicator, Rendezvous};

fn fractions(rank: usize, len: usize) -> Vec<f32> {
    (0..len).map(|at| 1.0 / ((rank * 31 + at) % 1000 + 1) as f32).collect()
}

#[test]
fn every_operation_gives_what_it_should() {
    for world in 1..=5 {
        // Above a piece, and not a multiple of it.
        let len = 150_001;
        let found = ranks(world, |all| {
            let rank = all.rank();
            let sum = all.all_reduce(fractions(rank, len));
            let again = all.all_reduce(fractions(rank, len));
            let parts: Vec<usize> = (0..world).map(|rank| rank * 1000 + 1).collect();
            let ones = vec![rank as f32 + 1.0; parts.iter().sum()];
            let part = all.reduce_scatter(ones, &parts).unwrap().wait().unwrap();
            assert_eq!(part, vec![(world * (world + 1) / 2) as f32; parts[rank]]);
            let gathered = all.all_gather(vec![rank as f32; parts[rank]], &parts).unwrap();
            let expected = (0..world).flat_map(|rank| vec![rank as f32; parts[rank]]);
            assert_eq!(gathered.wait().unwrap(), expected.collect::<Vec<_>>());
            let copied = all.broadcast(fractions(rank, 70_000), world - 1).unwrap();
            assert_eq!(copied.wait().unwrap(), fractions(world - 1, 70_000));
            // Rank a sends b * 40,000 + a numbers to b.
            let out = (0..world).map(|to| vec![(rank * 10 + to) as u64; to * 40_000 + rank]);
            let come = all.all_to_all(out.collect()).unwrap().wait().unwrap();
            for (from, come) in come.iter().enumerate() {
                assert_eq!(*come, vec![(from * 10 + rank) as u64; rank * 40_000 + from]);
            }
            let shared = all.share(vec![rank as u32]).wait().unwrap();
            assert_eq!(shared, (0..world as u32).map(|rank| vec![rank]).collect::<Vec<_>>());
            let sums = (sum.wait().unwrap(), again.wait().unwrap());
            assert_eq!(sums.0, sums.1, "two runs differ");
            all.close().unwrap();
            sums.0
        });
        assert!(found.iter().all(|sum| *sum == found[0]), "{world} ranks differ");
        let exact = |at| (0..world).map(|rank| f64::from(fractions(rank, len)[at])).sum::<f64>();
        for at in [0, 7, 65_536, len - 1] {
            assert!((f64::from(found[0][at]) / exact(at) - 1.0).abs() < 1e-6);
        }
    }
}

#[test]
fn groups_do_not_wait_for_each_other() {
    ranks(4, |all| {
        let rank = all.rank();
        let pair = all.split(|rank| rank / 2);
        let second = all.split(|_| 0);
        assert_eq!((pair.ranks(), pair.rank()), (2, rank % 2));
        // The first stream waits for a rank that is busy with the second.
        let early = (rank != 3).then(|| all.all_reduce(vec![1.0]));
        let sums = pair.all_reduce(vec![rank as f32]).wait().unwrap();
        assert_eq!(sums, [if rank < 2 { 1.0 } else { 5.0 }]);
        assert_eq!(second.all_reduce(vec![1.0]).wait().unwrap(), [4.0]);
        let late = early.unwrap_or_else(|| all.all_reduce(vec![1.0]));
        assert_eq!(late.wait().unwrap(), [4.0]);
        all.close().unwrap();
    });
}

#[test]
fn who_does_something_else_is_named() {
    let errors = ranks(3, |all| {
        let failed = match all.rank() {
            2 => all.broadcast(vec![0.0; 3], 0).unwrap().wait().map(drop),
            _ => all.all_reduce(vec![0.0; 3]).wait().map(drop),
        };
        failed.unwrap_err().to_string()
    });
    for error in errors {
        assert!(error.contains("all ranks must do the same"), "{error}");
    }
    let errors =
        ranks(2, |all| all.all_reduce(vec![0.0; 3 + all.rank()]).wait().unwrap_err().to_string());
    for error in errors {
        assert!(error.contains("bytes"), "{error}");
    }
}

#[test]
fn who_leaves_without_a_word_ends_all() {
    let errors = ranks(4, |all| {
        if all.rank() == 3 {
            return None;
        }
        let begun = Instant::now();
        // Rank 3 never joins in.
        let error = all.all_reduce(vec![0.0; 8]).wait().unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        // Later operations say the same.
        let later = all.barrier().wait().unwrap_err();
        assert_eq!(later.to_string(), error.to_string());
        Some(error)
    });
    for error in errors.into_iter().flatten() {
        assert!(matches!(error, CollectiveError::Lost { rank: 3, .. }), "{error}");
    }
}

#[test]
fn who_is_missing_at_the_beginning_is_named() {
    let (folder, port) = (tempfile::tempdir().unwrap(), port());
    let errors: Vec<String> = thread::scope(|scope| {
        let start = |rank| {
            let timeout = Duration::from_millis(700);
            let mine = Rendezvous { timeout, ..rendezvous(folder.path(), port, rank, 4) };
            scope.spawn(move || Communicator::meet(mine).unwrap_err().to_string())
        };
        let all: Vec<_> = [0, 2].map(start).into();
        all.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    for error in errors {
        assert!(error.contains("ranks [1, 3] of 4 did not come within"), "{error}");
    }
}

#[test]
fn who_fails_says_why() {
    let errors = ranks(3, |all| {
        if all.rank() == 1 {
            all.fail("the text is gone");
        }
        all.barrier().wait().unwrap_err().to_string()
    });
    assert_eq!(errors, ["rank 1 failed: the text is gone"; 3]);
}

/// More than all windows hold: what rises and what falls do not keep each other waiting.
#[test]
fn sums_may_be_larger_than_the_windows() {
    for count in [2, 3, 4] {
        let sums = ranks(count, |all| {
            let sum = all.all_reduce(vec![1.0; 3 << 20]).wait().unwrap();
            all.close().unwrap();
            sum
        });
        for sum in sums {
            assert!(sum.len() == 3 << 20 && sum.iter().all(|number| *number == count as f32));
        }
    }
}
