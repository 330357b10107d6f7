//! Seeds that go where something was found, each with what went wrong there before it was mended. A seed is
//! another run once the simulator draws differently: then it fails here, and one that takes the same path is
//! looked for (`cargo xtask sim --seed N` shows which it takes).

use Table::{Fixed, Planned};
use ff2_sim::{
    Setting, Table,
    marks::{COUNTED, Mark},
    run_as,
};

/// Table, seed, path, and what was found on it.
const FOUND: [(Table, u64, Mark, &str); 9] = [
    (
        Fixed,
        13,
        Mark::LearnerPromoted,
        "a crash took back who votes, and a group had no majority any more",
    ),
    (
        Fixed,
        1180,
        Mark::KnownByDisk,
        "a server that crashed before it knew its id was another one after",
    ),
    (
        Fixed,
        696,
        Mark::CopyLeftBehind,
        "a server that crashed after a damaged chunk's repair panicked, and another dropped the repair",
    ),
    (
        Fixed,
        1715,
        Mark::OutcomeFound,
        "a crash brought back what the chain had dropped and removed since",
    ),
    (
        Fixed,
        447,
        Mark::DoubleAnswered,
        "a cut to nothing whose answer was lost was carried out again, on what was written since",
    ),
    (
        Fixed,
        367,
        Mark::UpdatesThawed,
        "a write that had begun before a snapshot came into it when reads had been without it since",
    ),
    (
        Fixed,
        692,
        Mark::CutGivesWay,
        "a member left its chain to another that did not reach it, and that had just lost its disk",
    ),
    (
        Planned,
        155,
        Mark::DroppedTaken,
        "who had dropped an update for a resync's copy refused it for ever, and its chunk took no writes",
    ),
    (
        Planned,
        578,
        Mark::DamageHealed,
        "a store that was only away was given up while its chain was copied from one that could not be read",
    ),
];

#[test]
fn what_was_found_once_stays_mended() {
    for (table, seed, mark, what) in FOUND {
        let verdict = run_as(seed, Setting { table, ..Setting::default() });
        assert!(verdict.problems.is_empty(), "{what}: {verdict}\n{}", verdict.problems.join("\n"));
        let is_there = !COUNTED || verdict.marks.count(mark) > 0;
        assert!(is_there, "seed {seed} of {table:?} does not take {mark:?} any more");
    }
}
