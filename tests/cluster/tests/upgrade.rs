//! An upgrade under load. The old release is this one, held back: `cargo xtask upgrade --from REV` does the same
//! from the programs of another commit.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use ff2_cluster_tests::upgrade::{Release, upgrade};

#[test]
fn a_cluster_is_upgraded_under_load_and_back_on_the_way() {
    println!("{:?}", upgrade(&Release::AsLevel(1)).unwrap());
}
