//! Records of pending versions that an index may have become.

use ff2_fuzz::{bounded, target};
use ff2_proto::{ChunkId, TargetId};
use ff2_storage_core::format::DATA_START;
use prost::Message;

use super::*;

const KEY: Key = Key::Pending(TargetId(7), ChunkId::new(ff2_proto::InodeId(9), 3));

fn patches() -> Patches {
    let patch = |crc| Patch { version: 8, batch: 0, crc, bytes: Bytes::from_static(&[1; 16]) };
    Patches::from([((0, 3), patch(5)), ((2, 63), patch(6))])
}

fn record() -> pb::PendingRecord {
    let mut piece = Piece::new(Block { position: DATA_START, size: 64 << 10 });
    piece.set(3, 5);
    let pieces = vec![
        pb::PendingPiece { piece: 0, replaced: Some(piece.to_record()), ..Default::default() },
        pb::PendingPiece { piece: 1, dropped: true, ..Default::default() },
        pb::PendingPiece {
            piece: 2,
            filled: 0b101,
            crc32c: vec![1, 2],
            cleared: 8,
            ..Default::default()
        },
    ];
    let patch = |piece, block, crc32c| pb::PatchRef { piece, block, crc32c };
    pb::PendingRecord {
        version: 8,
        chain_version: 4,
        kind: pb::UpdateKind::Write.into(),
        length: 99,
        chunk_size: 1 << 20,
        pieces,
        patches: vec![patch(0, 3, 5), patch(2, 63, 6)],
        ..Default::default()
    }
}

#[test]
fn a_patch_of_a_piece_that_cannot_be_is_refused() {
    assert!(PendingState::from_record(&KEY, &record(), patches()).is_ok());
    for (piece, block) in [(1 << 16, 3), (0, 256 + 3)] {
        let mut record = record();
        (record.patches[0].piece, record.patches[0].block) = (piece, block);
        let refused = PendingState::from_record(&KEY, &record, patches());
        assert_eq!(refused.unwrap_err().code, Code::Corrupt, "not taken for the patch of (0, 3)");
    }
}

#[test]
fn damaged_pending_versions() {
    let seeds = vec![
        record().encode_to_vec(),
        pb::PendingRecord { kind: 3, ..Default::default() }.encode_to_vec(),
    ];
    target!(seeds, |bytes| {
        let Ok(record) = bounded(bytes, || pb::PendingRecord::decode(bytes)) else { return };
        let read = |record: &pb::PendingRecord| PendingState::from_record(&KEY, record, patches());
        if let Ok(state) = bounded(bytes, || read(&record)) {
            let again = read(&state.to_record()).unwrap();
            assert_eq!(format!("{again:?}"), format!("{state:?}"));
        }
        if let Ok(record) = pb::ChunkRecord::decode(bytes) {
            assert_eq!(committed_record(&committed(&record)), record);
        }
    });
}
