//! Between the bytes of the wire and the cells of the simulated disk.

use ff2_storage_core::target::{Change, StoreOp};
use ff2_storaged::payload::Payload;

use crate::disk::{CELL, Content};

pub(super) fn to_bytes(cells: &[u64]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_le_bytes()).collect()
}

pub(super) fn from_bytes(bytes: &[u8]) -> Content {
    let cells = bytes.chunks_exact(CELL as usize);
    assert!(cells.remainder().is_empty(), "clients write whole cells");
    cells.map(|cell| u64::from_le_bytes(cell.try_into().expect("a chunk of this size"))).collect()
}

/// The same operation with its payload as cells.
pub(super) fn stored(op: StoreOp<Payload>) -> StoreOp<Content> {
    match op {
        StoreOp::Prepare { id, change, chunk_size, tags, keeping } => {
            let change = match change {
                Change::Write { offset, length, payload } => {
                    Change::Write { offset, length, payload: from_bytes(&payload) }
                }
                Change::Truncate { length } => Change::Truncate { length },
                Change::Remove => Change::Remove,
                Change::Replace { length, payload } => {
                    Change::Replace { length, payload: from_bytes(&payload) }
                }
            };
            StoreOp::Prepare { id, change, chunk_size, tags, keeping }
        }
        StoreOp::Commit { id } => StoreOp::Commit { id },
        StoreOp::Abort { id } => StoreOp::Abort { id },
    }
}

/// The value that a client's write writes; a replacement brings many.
pub(super) fn written(change: &Change<Content>) -> Option<u64> {
    match change {
        Change::Write { payload, .. } => payload.first().copied(),
        Change::Truncate { .. } | Change::Remove | Change::Replace { .. } => None,
    }
}
