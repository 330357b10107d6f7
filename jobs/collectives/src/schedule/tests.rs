#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, VecDeque};

use super::{tree::neighbours, *};

/// Follows the steps of all ranks at once, in an order that the seed decides; panics if they wait for each other or a
/// piece has another length than was expected.
fn follow(schedules: Vec<Vec<Sequence>>, numbers: &mut [Vec<f32>], seed: u64) {
    let mut lanes: Vec<(usize, VecDeque<Step>)> = Vec::new();
    for (rank, sequences) in schedules.into_iter().enumerate() {
        lanes.extend(sequences.into_iter().map(|sequence| (rank, sequence.into())));
    }
    let mut wires: BTreeMap<(usize, usize, u32), VecDeque<Vec<f32>>> = BTreeMap::new();
    let mut random = seed;
    while lanes.iter().any(|(_, lane)| !lane.is_empty()) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let begin = usize::try_from(random >> 33).unwrap() % lanes.len();
        let count = lanes.len();
        let moved = (0..count).any(|at| {
            let (rank, lane) = &mut lanes[(begin + at) % count];
            match lane.front().cloned() {
                None => false,
                Some(Step::Send { to, tag, part }) => {
                    let piece = numbers[*rank][part].to_vec();
                    wires.entry((*rank, to, tag)).or_default().push_back(piece);
                    lane.pop_front();
                    true
                }
                Some(Step::Receive { from, tag, part, how }) => {
                    let wire = wires.entry((from, *rank, tag)).or_default();
                    let Some(piece) = wire.pop_front() else { return false };
                    assert_eq!(piece.len(), part.len());
                    for (here, there) in numbers[*rank][part].iter_mut().zip(piece) {
                        match how {
                            How::Add => *here += there,
                            How::Replace => *here = there,
                        }
                    }
                    lane.pop_front();
                    true
                }
            }
        });
        assert!(moved, "the ranks wait for each other");
    }
    assert!(wires.values().all(VecDeque::is_empty), "pieces that nobody wanted");
}

/// Numbers of a rank whose sums are exact in whatever order.
fn whole(rank: usize, len: usize) -> Vec<f32> {
    (0..len).map(|at| ((rank + 1) * (at + 3) % 1000) as f32).collect()
}

fn all(ranks: usize, len: usize) -> Vec<Vec<f32>> {
    (0..ranks).map(|rank| whole(rank, len)).collect()
}

fn sum(ranks: usize, len: usize) -> Vec<f32> {
    (0..len).map(|at| (0..ranks).map(|rank| whole(rank, len)[at]).sum()).collect()
}

fn of(ranks: usize, piece: usize, each: impl Fn(Place) -> Vec<Sequence>) -> Vec<Vec<Sequence>> {
    (0..ranks).map(|rank| each(Place { rank, ranks, piece })).collect()
}

#[test]
fn all_have_the_sum_for_any_number_of_ranks_and_pieces() {
    for ranks in 1..=33 {
        for (len, piece) in [(0, 4), (1, 4), (7, 4), (50, 3), (64, 64)] {
            let mut numbers = all(ranks, len);
            follow(of(ranks, piece, |place| all_reduce(place, len)), &mut numbers, ranks as u64);
            assert!(numbers.iter().all(|n| *n == sum(ranks, len)), "{ranks} ranks, {len} numbers");
        }
    }
}

#[test]
fn sums_have_the_same_bits_however_the_ranks_are_timed() {
    for ranks in 2..=33 {
        let begin: Vec<Vec<f32>> = (0..ranks)
            .map(|rank| (0..40).map(|at| 1.0 / (1 + rank * 40 + at) as f32).collect())
            .collect();
        let after = |seed: u64| {
            let mut numbers = begin.clone();
            follow(of(ranks, 7, |place| all_reduce(place, 40)), &mut numbers, seed);
            numbers
        };
        let first = after(1);
        assert!(first.iter().all(|numbers| *numbers == first[0]), "{ranks}: ranks differ");
        (2..6).for_each(|seed| assert_eq!(first, after(seed), "{ranks}: runs differ"));
    }
}

#[test]
fn parts_are_summed_and_gathered_for_any_number_of_ranks() {
    for ranks in 1..=33 {
        // Uneven parts, some without any numbers.
        let parts: Vec<usize> = (0..ranks).map(|rank| rank * 5 % 8).collect();
        let len = parts.iter().sum();
        let mut numbers = all(ranks, len);
        follow(of(ranks, 3, |place| reduce_scatter(place, &parts)), &mut numbers, 1);
        let expected = sum(ranks, len);
        let part = |rank: usize| {
            let start: usize = parts[..rank].iter().sum();
            start..start + parts[rank]
        };
        for (rank, numbers) in numbers.iter().enumerate() {
            assert_eq!(numbers[part(rank)], expected[part(rank)], "rank {rank} of {ranks}");
        }
        follow(of(ranks, 3, |place| all_gather(place, &parts)), &mut numbers, 2);
        assert!(numbers.iter().all(|n| *n == expected), "{ranks} ranks");
    }
}

#[test]
fn all_have_what_the_root_had() {
    for ranks in 1..=33 {
        for root in [0, ranks / 2, ranks - 1] {
            let mut numbers = all(ranks, 10);
            follow(of(ranks, 4, |place| broadcast(place, root, 10)), &mut numbers, 3);
            assert!(numbers.iter().all(|n| *n == whole(root, 10)), "{ranks} ranks from {root}");
        }
    }
}

#[test]
fn trees_are_low_and_nobody_but_one_passes_on_in_both() {
    for ranks in 1..=33 {
        let trees: Vec<Vec<_>> = (0..2)
            .map(|tree| (0..ranks).map(|rank| neighbours(rank, ranks, tree)).collect())
            .collect();
        for tree in &trees {
            assert_eq!(tree.iter().filter(|n| n.parent.is_none()).count(), 1);
            for (rank, place) in tree.iter().enumerate() {
                assert!(place.children.len() <= 2, "{ranks}: rank {rank} has {place:?}");
                let above = |rank: &usize| tree[*rank].parent;
                let depth = std::iter::successors(Some(rank), above).take(100).count();
                assert!(depth <= ranks.ilog2() as usize + 2, "{ranks}: rank {rank} at {depth}");
            }
        }
        let busy = |rank: &usize| trees.iter().all(|tree| !tree[*rank].children.is_empty());
        let in_both = (0..ranks).filter(busy).count();
        assert!(in_both <= 2, "{ranks}: {in_both} ranks pass on in both trees");
    }
}

#[test]
fn every_turn_has_each_rank_once() {
    for ranks in 1..=33 {
        let all: Vec<Vec<_>> = (0..ranks).map(|rank| turns(rank, ranks).collect()).collect();
        for turn in 0..ranks - 1 {
            for (rank, turns) in all.iter().enumerate() {
                let (to, from) = turns[turn];
                assert_eq!((all[to][turn].1, all[from][turn].0), (rank, rank));
                assert_ne!(to, rank);
            }
        }
    }
}
