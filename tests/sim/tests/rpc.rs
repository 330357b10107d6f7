//! Fifty seeds of the RPC layer in every run of the tests, in parts that can run side by side.

use ff2_sim::run_rpc;

fn seeds(range: std::ops::Range<u64>) {
    for seed in range {
        let verdict = run_rpc(seed);
        println!("{verdict}");
        assert!(
            verdict.problems.is_empty(),
            "{verdict}\n{}\n{}\nreplay: cargo xtask sim --rpc --seed {seed}",
            verdict.log.join("\n"),
            verdict.problems.join("\n"),
        );
    }
}

#[test]
fn seeds_0_to_24() {
    seeds(0..25);
}

#[test]
fn seeds_25_to_49() {
    seeds(25..50);
}

/// The same seed twice, frame for frame: otherwise no failure could be replayed.
#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in [3, 14, 15] {
        let (one, two) = (run_rpc(seed), run_rpc(seed));
        assert_eq!((one.hash, one.events), (two.hash, two.events), "seed {seed}");
    }
}
