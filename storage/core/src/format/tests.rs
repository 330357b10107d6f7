use ff2_proto::{ChunkId, InodeId, TargetId};
use proptest::prelude::*;

use super::*;
use crate::alloc::Block;

fn chunk(inode: u64, index: u32) -> ChunkId {
    ChunkId::new(InodeId(inode), index)
}

fn keys() -> impl Strategy<Value = Key> {
    let of = (any::<u64>(), any::<u64>(), any::<u32>())
        .prop_map(|(target, inode, index)| (TargetId(target), chunk(inode, index)));
    prop_oneof![
        Just(Key::Superblock),
        any::<u64>().prop_map(|id| Key::Target(TargetId(id))),
        of.clone().prop_map(|(target, chunk)| Key::Chunk(target, chunk)),
        of.clone().prop_map(|(target, chunk)| Key::Pending(target, chunk)),
        (of.clone(), any::<u16>()).prop_map(|((target, chunk), n)| Key::Piece(target, chunk, n)),
        (of, any::<u16>(), any::<u8>(), any::<u64>())
            .prop_map(|((target, chunk), n, sector, v)| Key::Patch(target, chunk, n, sector, v)),
    ]
}

proptest! {
    #[test]
    fn keys_survive_encoding(key in keys()) {
        prop_assert_eq!(decode(&key.encode()), Ok(key));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(key) = decode(&bytes) {
            prop_assert_eq!(key.encode(), bytes.clone());
        }
        prop_assert!(Superblock::decode(&bytes).is_err());
    }

    #[test]
    fn pieces_survive_encoding(sets in proptest::collection::vec((0u32..64, any::<u32>()), 0..80),
                               clear in any::<u64>()) {
        let mut piece = Piece::new(Block { position: DATA_START, size: PIECE_SIZE });
        for (sector, crc) in sets {
            piece.set(sector, crc);
        }
        piece.clear(clear);
        prop_assert_eq!(piece.written & clear, 0);
        prop_assert_eq!(Piece::from_record(&piece.to_record()), Ok(piece));
    }
}

#[test]
fn rows_of_a_chunk_lie_together_and_in_order() {
    let (target, it) = (TargetId(7), chunk(9, 3));
    let rows = [
        Key::Chunk(target, it),
        Key::Piece(target, it, 0),
        Key::Piece(target, it, 300),
        Key::Patch(target, it, 0, 63, u64::MAX),
        Key::Patch(target, it, 1, 0, 0),
        Key::Pending(target, it),
    ]
    .map(|key| key.encode());
    assert!(rows.is_sorted());
    let (from, to) = chunk_bounds(target, it);
    assert!(rows.iter().all(|row| *row >= from && *row < to));
    for other in [chunk(9, 2), chunk(9, 4), chunk(8, u32::MAX), chunk(10, 0)] {
        let key = Key::Chunk(target, other).encode();
        assert!(key < from || key >= to);
    }
    let (from, to) = target_bounds(Some(target));
    assert!(rows.iter().all(|row| *row >= from && *row < to));
    let (from, to) = target_bounds(Some(TargetId(u64::MAX)));
    assert!(from < to);
}

#[test]
fn a_key_with_more_behind_it_names_no_row() {
    for key in [Key::Superblock, Key::Target(TargetId(7)), Key::Chunk(TargetId(7), chunk(9, 3))] {
        let longer = [&key.encode()[..], &[0]].concat();
        assert!(decode(&longer).is_err(), "{key:?}");
    }
    assert!(decode(b"m").is_err(), "no superblock's");
    assert!(decode(b"m\x01").is_err(), "no superblock's");
}

#[test]
fn a_superblock_tells_what_is_wrong() {
    let good = Superblock { uuid: [7; 16], capacity: 1 << 30, group_bytes_max: 1 << 24 };
    let bytes = good.encode();
    assert_eq!(bytes.len(), SECTOR as usize);
    assert_eq!(Superblock::decode(&bytes), Ok(good));
    let broken = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        Superblock::decode(&bytes).expect_err("one bit is wrong").0
    };
    assert!(broken(0).contains("no disk"));
    assert!(broken(8).contains("format version"));
    assert!(broken(20).contains("checksum"));
    assert!(broken(45).contains("checksum"));
}

#[test]
fn bad_piece_records_are_refused() {
    let mut piece = Piece::new(Block { position: DATA_START, size: BLOCK_SIZE_MIN });
    piece.set(3, 5);
    let good = piece.to_record();
    assert!(Piece::from_record(&good).is_ok());
    let bad = |change: fn(&mut ff2_proto::pb::PieceRecord)| {
        let mut record = good.clone();
        change(&mut record);
        assert!(Piece::from_record(&record).is_err(), "{record:?}");
    };
    bad(|record| record.block = 0);
    bad(|record| record.block += 1);
    bad(|record| record.block_size = 65_537);
    bad(|record| record.length += 1);
    bad(|record| record.holes = 1 << 60);
    bad(|record| record.crc32c = vec![0; 17]);
}
