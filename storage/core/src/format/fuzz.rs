//! What a disk or an index may have become: damaged rows are refused, or read as rows that encode to the
//! same bytes again.

use ff2_fuzz::{bounded, target};
use ff2_proto::{ChunkId, InodeId, TargetId, pb};
use prost::Message;

use super::*;
use crate::{alloc::Allocator, alloc::Block, limits, tags::Tags};

fn keys() -> Vec<Vec<u8>> {
    let (target, chunk) = (TargetId(7), ChunkId::new(InodeId(9), 3));
    let keys = [
        Key::Superblock,
        Key::Target(target),
        Key::Chunk(target, chunk),
        Key::Piece(target, chunk, 300),
        Key::Patch(target, chunk, 1, 63, u64::MAX),
        Key::Pending(target, chunk),
    ];
    keys.iter().map(Key::encode).collect()
}

#[test]
fn damaged_keys() {
    target!(keys(), |bytes| {
        if let Ok(key) = bounded(bytes, || decode(bytes)) {
            assert_eq!(key.encode(), bytes, "{key:?}");
        }
    });
}

fn superblocks() -> Vec<Vec<u8>> {
    let superblock = Superblock { uuid: [7; 16], capacity: 1 << 30, group_bytes_max: 1 << 24 };
    vec![superblock.encode(), superblock.encode()[..64].to_vec()]
}

#[test]
fn damaged_superblocks() {
    target!(superblocks(), |bytes| {
        let whole = bounded(bytes, || Superblock::decode(bytes));
        let good = superblocks();
        assert_eq!(whole.is_ok(), bytes.get(..48) == good[0].get(..48), "only what was written");
        // As if somebody had made the checksum fit.
        let mut sealed = bytes.to_vec();
        if let Some((fields, rest)) = sealed.split_at_mut_checked(44)
            && rest.len() >= 4
        {
            rest[..4].copy_from_slice(&crc32c(fields).to_le_bytes());
        }
        if let Ok(superblock) = Superblock::decode(&sealed) {
            assert_eq!(superblock.encode()[..48], sealed[..48]);
        }
    });
}

fn piece_records() -> Vec<Vec<u8>> {
    let mut piece = Piece::new(Block { position: DATA_START, size: PIECE_SIZE });
    let mut small = Piece::new(Block { position: DATA_START * 9, size: BLOCK_SIZE_MIN });
    (0..20).for_each(|sector| piece.set(sector * 3, sector));
    small.set(3, 5);
    [piece, small].iter().map(|piece| piece.to_record().encode_to_vec()).collect()
}

#[test]
fn damaged_pieces() {
    target!(piece_records(), |bytes| {
        let Ok(record) = bounded(bytes, || pb::PieceRecord::decode(bytes)) else { return };
        let Ok(mut piece) = bounded(bytes, || Piece::from_record(&record)) else { return };
        assert_eq!(Piece::from_record(&piece.to_record()).as_ref(), Ok(&piece));
        assert!(piece.sectors() <= PIECE_SECTORS);
        for sector in 0..PIECE_SECTORS {
            assert_eq!(piece.crc(sector).is_some(), piece.is_written(sector));
        }
        // A block that the record names is marked once, inside of the disk, or refused.
        let mut allocator = Allocator::new(1 << 30, 1 << 24);
        if allocator.mark(piece.block).is_ok() {
            assert!(piece.block.position + u64::from(piece.block.size) <= 1 << 30);
            assert!(allocator.mark(piece.block).is_err(), "two pieces in one block");
        }
        piece.clear(u64::MAX);
        assert_eq!(piece.written, 0);
    });
}

fn chunk_records() -> Vec<Vec<u8>> {
    let tag = |session| Some(pb::UpdateTag { session, channel: 1, seq: 5, ack_below: 4 });
    let tags = |count| (0..count).map(|n| pb::AppliedTag { tag: tag(n), version: n + 1 }).collect();
    let record =
        |count| pb::ChunkRecord { committed_version: 9, tags: tags(count), ..Default::default() };
    [1, 4, 200].map(|count| record(count).encode_to_vec()).to_vec()
}

#[test]
fn damaged_tags() {
    target!(5_000, chunk_records(), |bytes| {
        let Ok(record) = bounded(bytes, || pb::ChunkRecord::decode(bytes)) else { return };
        let tags = Tags::from_entries(record.tags);
        assert!(tags.entries().len() <= limits::TAGS_PER_CHUNK);
        assert_eq!(Tags::from_entries(tags.to_entries()), tags);
    });
}
