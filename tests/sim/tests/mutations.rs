//! Errors that are planted into the simulated nodes: a simulator that does not notice them proves nothing.

use ff2_sim::{Mutation, run, run_mutated};

/// By which seed each is found. `cargo xtask sim --mutations` looks for the first ones anew.
const FOUND_BY: [(Mutation, u64); 13] = [
    (Mutation::Fence, 14),
    (Mutation::VersionCheck, 0),
    (Mutation::Sync, 0),
    (Mutation::OnceChunks, 3),
    (Mutation::OnceNames, 0),
    (Mutation::Checksum, 0),
    (Mutation::Retire, 1992),
    (Mutation::Keep, 3),
    (Mutation::Unheard, 624),
    (Mutation::Scrub, 5),
    (Mutation::Spares, 17),
    (Mutation::Quota, 31),
    (Mutation::Trash, 31),
];

#[test]
fn each_planted_error_is_found_by_a_seed_that_holds_without_it() {
    for (mutation, seed) in FOUND_BY {
        let verdict = run_mutated(seed, Some(mutation));
        assert!(!verdict.problems.is_empty(), "{mutation:?} is not found: {verdict}");
        let verdict = run(seed);
        assert!(verdict.problems.is_empty(), "{verdict}");
    }
}
