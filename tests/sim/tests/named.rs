//! Seeds that go where something was found, each with what went wrong there before it was mended. A seed is
//! another run once the simulator draws differently: then it fails here, and one that takes the same path is
//! looked for (`cargo xtask sim --seed N` shows which it takes).

use ff2_sim::{
    marks::{COUNTED, Mark},
    run,
};

/// Seed, path, and what was found on it.
const FOUND: [(u64, Mark, &str); 7] = [
    (
        13,
        Mark::LearnerPromoted,
        "a crash took back who votes, and a group had no majority any more",
    ),
    (1180, Mark::KnownByDisk, "a server that crashed before it knew its id was another one after"),
    (
        696,
        Mark::CopyLeftBehind,
        "a server that crashed after a damaged chunk's repair panicked, and another dropped the repair",
    ),
    (1715, Mark::OutcomeFound, "a crash brought back what the chain had dropped and removed since"),
    (
        447,
        Mark::DoubleAnswered,
        "a cut to nothing whose answer was lost was carried out again, on what was written since",
    ),
    (
        367,
        Mark::UpdatesThawed,
        "a write that had begun before a snapshot came into it when reads had been without it since",
    ),
    (
        692,
        Mark::CutGivesWay,
        "a member left its chain to another that did not reach it, and that had just lost its disk",
    ),
];

#[test]
fn what_was_found_once_stays_mended() {
    for (seed, mark, what) in FOUND {
        let verdict = run(seed);
        assert!(verdict.problems.is_empty(), "{what}: {verdict}\n{}", verdict.problems.join("\n"));
        let is_there = !COUNTED || verdict.marks.count(mark) > 0;
        assert!(is_there, "seed {seed} does not take {mark:?} any more");
    }
}
