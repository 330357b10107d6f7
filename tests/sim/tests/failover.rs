//! How soon the chains of a storage node that dies serve without it, with the settings that a cluster has if
//! nobody says otherwise.

use std::{ops::Range, time::Duration};

use ff2_sim::{Failover, failover};

const SEEDS: Range<u64> = 0..60;

/// The slowest of all seeds.
fn slowest(with_leader: bool) -> Failover {
    let all: Vec<Failover> = SEEDS.map(|seed| failover(seed, with_leader)).collect();
    let served = all.iter().map(|one| one.served).max().expect("there are seeds");
    let answered = all.iter().map(|one| one.answered).max().expect("there are seeds");
    println!(
        "with the leader: {with_leader}; served after {served:?}, answered after {answered:?}"
    );
    Failover { served, answered }
}

#[test]
fn the_chains_of_a_dead_node_serve_without_it_within_five_seconds() {
    let slowest = slowest(false);
    assert!(slowest.served < Duration::from_secs(5), "{slowest:?}");
    assert!(slowest.answered < Duration::from_secs(5), "{slowest:?}");
}

/// The new leader has not heard anybody yet: an election, then a whole lease.
#[test]
fn the_death_of_the_leader_at_the_same_moment_costs_an_election_more() {
    let slowest = slowest(true);
    assert!(slowest.served < Duration::from_secs(7), "{slowest:?}");
}
