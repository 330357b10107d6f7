use proptest::prelude::*;

use super::*;

const KIB: u32 = 1 << 10;
const CHUNK: u32 = 4 << 20;

fn run(length: u32, pieces: &[(u16, u32, u64)], may_fill: bool, change: Change) -> Plan {
    let pieces = pieces
        .iter()
        .map(|(piece, block_size, written)| {
            (*piece, PieceState { block_size: *block_size, written: *written })
        })
        .collect();
    let state = ChunkState {
        length,
        chunk_size: CHUNK,
        may_fill,
        grows: false,
        keeps: false,
        pieces: &pieces,
    };
    plan(&state, change).expect("the change is within the chunk")
}

fn steps(plan: &Plan) -> Vec<(u16, Step)> {
    plan.steps.iter().map(|(piece, step)| (*piece, *step)).collect()
}

fn write(offset: u32, length: u32) -> Change {
    Change::Write { offset, length }
}

/// One row of the table: name, length, pieces (index, block size, written), change, steps.
type Row = (&'static str, u32, Vec<(u16, u32, u64)>, Change, Vec<(u16, Step)>);

const ALL: u64 = u64::MAX;
const FULL: u32 = PIECE_SIZE;

fn table() -> Vec<Row> {
    let rewrite = |block_size, write, keep| Step::Rewrite { block_size, write, keep };
    let adjust = |fill, patch, clear| Step::Adjust { fill, patch, clear };
    vec![
        ("a small new file", 0, vec![], write(0, 100), vec![(0, rewrite(64 * KIB, 1, 0))]),
        (
            "a sequential write gets whole pieces",
            0,
            vec![],
            write(0, 512 * KIB),
            vec![(0, rewrite(FULL, ALL, 0)), (1, rewrite(FULL, ALL, 0))],
        ),
        (
            "a later piece gets its whole block at once",
            FULL,
            vec![(0, FULL, ALL)],
            write(FULL, 4 * KIB),
            vec![(1, rewrite(FULL, 1, 0))],
        ),
        (
            "an aligned append goes in place",
            8 * KIB,
            vec![(0, 64 * KIB, 0b11)],
            write(8 * KIB, 8 * KIB),
            vec![(0, adjust(0b1100, 0, 0))],
        ),
        (
            "an append inside a sector patches it",
            5_000,
            vec![(0, 64 * KIB, 0b11)],
            write(5_000, 10),
            vec![(0, adjust(0, 0b10, 0))],
        ),
        (
            "a long append patches the shared sector and fills the rest",
            5_000,
            vec![(0, FULL, 0b11)],
            write(5_000, 60_000),
            vec![(0, adjust(0xfffc, 0b10, 0))],
        ),
        (
            "growth out of the block",
            64 * KIB,
            vec![(0, 64 * KIB, 0xffff)],
            write(64 * KIB, 4 * KIB),
            vec![(0, rewrite(FULL, 1 << 16, 0xffff))],
        ),
        (
            "a 4 KiB overwrite",
            FULL,
            vec![(0, FULL, ALL)],
            write(16 * KIB, 4 * KIB),
            vec![(0, adjust(0, 0b1_0000, 0))],
        ),
        (
            "32 KiB are patched, one sector more rewrites",
            FULL,
            vec![(0, FULL, ALL)],
            write(0, 32 * KIB),
            vec![(0, adjust(0, 0xff, 0))],
        ),
        (
            "a larger overwrite",
            FULL,
            vec![(0, FULL, ALL)],
            write(0, 36 * KIB),
            vec![(0, rewrite(FULL, 0x1ff, ALL & !0x1ff))],
        ),
        (
            "truncation inside a sector",
            FULL + 100,
            vec![(0, FULL, ALL), (1, FULL, 1)],
            Change::Truncate { length: 6_000 },
            vec![(0, adjust(0, 0b10, ALL & !0b11)), (1, Step::Drop)],
        ),
        (
            "truncation upwards changes the length alone",
            6_000,
            vec![(0, FULL, 0b11)],
            Change::Truncate { length: CHUNK },
            vec![],
        ),
        (
            "truncation to nothing",
            6_000,
            vec![(0, FULL, 0b11)],
            Change::Truncate { length: 0 },
            vec![(0, Step::Drop)],
        ),
        (
            "removal",
            6_000,
            vec![(0, FULL, 0b11), (9, FULL, 1)],
            Change::Remove,
            vec![(0, Step::Drop), (9, Step::Drop)],
        ),
        (
            "replacement",
            CHUNK,
            vec![(0, FULL, ALL), (3, FULL, ALL)],
            Change::Replace { length: CHUNK, payload: FULL + 1 },
            vec![(0, rewrite(FULL, ALL, 0)), (1, rewrite(64 * KIB, 1, 0)), (3, Step::Drop)],
        ),
        ("an empty write", 6_000, vec![(0, FULL, 0b11)], write(0, 0), vec![]),
    ]
}

#[test]
fn the_table_of_updates() {
    for (name, length, pieces, change, expected) in table() {
        let plan = run(length, &pieces, true, change);
        assert_eq!(steps(&plan), expected, "{name}");
    }
}

#[test]
fn only_edges_with_old_bytes_are_merged() {
    let full = [(0, FULL, ALL)];
    assert!(run(FULL, &full, true, write(4 * KIB, 4 * KIB)).merge.is_empty());
    let merge = run(FULL, &full, true, write(4 * KIB + 1, 4 * KIB)).merge;
    assert_eq!(merge, BTreeMap::from([(0, 0b110)]));
    assert!(run(0, &[], true, write(10, 10)).merge.is_empty());
    let merge = run(FULL, &full, true, Change::Truncate { length: 1 }).merge;
    assert_eq!(merge, BTreeMap::from([(0, 1)]));
}

#[test]
fn young_holes_are_not_filled() {
    let change = write(8 * KIB, 8 * KIB);
    let plan = run(8 * KIB, &[(0, FULL, 0b11)], false, change);
    assert_eq!(steps(&plan), [(0, Step::Adjust { fill: 0, patch: 0b1100, clear: 0 })]);
    let plan = run(8 * KIB, &[(0, FULL, 0b11)], false, write(8 * KIB, 128 * KIB));
    assert!(matches!(steps(&plan)[..], [(0, Step::Rewrite { keep: 0b11, .. })]));
}

#[test]
fn what_lies_beyond_the_chunk_is_refused() {
    let pieces = BTreeMap::new();
    let state = ChunkState {
        length: 0,
        chunk_size: 65_536,
        may_fill: true,
        grows: true,
        keeps: false,
        pieces: &pieces,
    };
    for change in [
        write(65_536, 1),
        write(u32::MAX, u32::MAX),
        Change::Truncate { length: 65_537 },
        Change::Replace { length: 1 << 20, payload: 0 },
        Change::Replace { length: 1, payload: 2 },
    ] {
        assert!(plan(&state, change).is_err(), "{change:?}");
    }
    let whole = plan(&state, write(0, 65_536)).expect("it fits");
    assert_eq!(whole.blocks().collect::<Vec<_>>(), [65_536], "no larger than the chunk");
}

proptest! {
    /// `check` asserts the rules; here: every touched sector gets its content exactly once.
    #[test]
    fn a_write_covers_what_it_touches(
        offset in 0..CHUNK,
        length in 1u32..600_000,
        written in proptest::collection::btree_map(0u16..16, any::<u64>(), 0..16),
        may_fill in any::<bool>(),
    ) {
        let length = length.min(CHUNK - offset);
        let pieces: Vec<_> = written.iter().map(|(piece, bits)| (*piece, FULL, *bits)).collect();
        let plan = run(CHUNK, &pieces, may_fill, write(offset, length));
        let mut sectors_written = 0;
        for step in plan.steps.values() {
            sectors_written += match *step {
                Step::Rewrite { write, .. } => write.count_ones(),
                Step::Adjust { fill, patch, clear } => {
                    prop_assert_eq!(clear, 0);
                    (fill | patch).count_ones()
                }
                Step::Drop => 0,
            };
        }
        let touched = (offset + length).div_ceil(SECTOR) - offset / SECTOR;
        prop_assert_eq!(sectors_written, touched);
    }
}
