//! Errors that are planted into the simulated nodes: a simulator that does not notice them proves nothing.

use Table::{Fixed, Planned};
use ff2_sim::{Mutation, Setting, Table, run_as};

/// On which table, by which seed each is found. `cargo xtask sim --mutations` looks for the first ones anew.
const FOUND_BY: [(Mutation, Table, u64); 15] = [
    (Mutation::Fence, Planned, 434),
    (Mutation::VersionCheck, Planned, 0),
    (Mutation::Sync, Planned, 0),
    (Mutation::OnceChunks, Planned, 3),
    (Mutation::OnceNames, Planned, 0),
    (Mutation::Checksum, Planned, 0),
    (Mutation::Retire, Fixed, 1992),
    (Mutation::Keep, Planned, 3),
    (Mutation::Unheard, Fixed, 624),
    (Mutation::Scrub, Planned, 225),
    (Mutation::Spares, Planned, 17),
    (Mutation::Quota, Planned, 31),
    (Mutation::Trash, Planned, 31),
    (Mutation::ExpireEarly, Planned, 8),
    (Mutation::ExpireNever, Planned, 8),
];

#[test]
fn each_planted_error_is_found_by_a_seed_that_holds_without_it() {
    for (mutation, table, seed) in FOUND_BY {
        let verdict = run_as(seed, Setting { mutation: Some(mutation), table });
        assert!(!verdict.problems.is_empty(), "{mutation:?} is not found: {verdict}");
        let verdict = run_as(seed, Setting { mutation: None, table });
        assert!(verdict.problems.is_empty(), "{verdict}");
    }
}
