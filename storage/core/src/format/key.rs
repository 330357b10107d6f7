//! Keys of the index. Their byte order is the order in which things are scanned: targets, then
//! chunk by chunk (record, pieces, patches, pending record), each followed by its clones.

use ff2_proto::{ChunkId, InodeId, TargetId};

use super::BadFormat;

const META: u8 = b'm';
const TARGET: u8 = b't';
const CHUNK: u8 = b'c';

const RECORD: u8 = 0;
const PIECE: u8 = 1;
const PATCH: u8 = 2;
const PENDING: u8 = 3;
/// Before the number of a clone and the sort of its row.
const CLONE: u8 = 4;

/// Bytes of the part that all rows of one chunk share, clones included.
const CHUNK_PREFIX: usize = 1 + 8 + 8 + 4;

/// One row of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A copy of the superblock, which ties the index to its data.
    Superblock,
    Target(TargetId),
    /// The committed version: `ChunkRecord`.
    Chunk(TargetId, ChunkId),
    /// `PieceRecord`, committed.
    Piece(TargetId, ChunkId, u16),
    /// The new content of one sector (4 KiB), made by `version`.
    Patch(TargetId, ChunkId, u16, u8, u64),
    /// `PendingRecord`.
    Pending(TargetId, ChunkId),
}

impl Key {
    pub fn encode(&self) -> Vec<u8> {
        match *self {
            Self::Superblock => vec![META, 0],
            Self::Target(target) => {
                let mut key = vec![TARGET];
                key.extend_from_slice(&target.0.to_be_bytes());
                key
            }
            Self::Chunk(target, chunk) => row(target, chunk, RECORD),
            Self::Piece(target, chunk, piece) => {
                let mut key = row(target, chunk, PIECE);
                key.extend_from_slice(&piece.to_be_bytes());
                key
            }
            Self::Patch(target, chunk, piece, sector, version) => {
                let mut key = row(target, chunk, PATCH);
                key.extend_from_slice(&piece.to_be_bytes());
                key.push(sector);
                key.extend_from_slice(&version.to_be_bytes());
                key
            }
            Self::Pending(target, chunk) => row(target, chunk, PENDING),
        }
    }
}

fn row(target: TargetId, chunk: ChunkId, sort: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(CHUNK_PREFIX + 17);
    key.push(CHUNK);
    key.extend_from_slice(&target.0.to_be_bytes());
    key.extend_from_slice(&chunk.inode.0.to_be_bytes());
    key.extend_from_slice(&chunk.index.to_be_bytes());
    if chunk.snapshot != 0 {
        key.push(CLONE);
        key.extend_from_slice(&chunk.snapshot.to_be_bytes());
    }
    key.push(sort);
    key
}

/// First key and end (exclusive) of all rows of a chunk.
pub fn chunk_bounds(target: TargetId, chunk: ChunkId) -> (Vec<u8>, Vec<u8>) {
    (row(target, chunk, RECORD), row(target, chunk, PENDING + 1))
}

/// First key and end (exclusive) of all chunks' rows: of one target, or of the disk.
pub fn target_bounds(target: Option<TargetId>) -> (Vec<u8>, Vec<u8>) {
    let Some(target) = target else { return (vec![CHUNK], vec![CHUNK + 1]) };
    let mut from = vec![CHUNK];
    from.extend_from_slice(&target.0.to_be_bytes());
    let to = match target.0.checked_add(1) {
        Some(next) => [&[CHUNK][..], &next.to_be_bytes()[..]].concat(),
        None => vec![CHUNK + 1],
    };
    (from, to)
}

/// The row that a key of the index names.
pub fn decode(key: &[u8]) -> Result<Key, BadFormat> {
    row_of(key).ok_or_else(|| BadFormat(format!("no row of the index has the key {key:02x?}")))
}

fn row_of(key: &[u8]) -> Option<Key> {
    let mut rest = key;
    let row = match take::<1>(&mut rest)?[0] {
        META if take(&mut rest)? == [0] => Key::Superblock,
        TARGET => Key::Target(TargetId(u64::from_be_bytes(take(&mut rest)?))),
        CHUNK => chunk_row(&mut rest)?,
        _ => return None,
    };
    // Nothing behind it: a longer key is another one.
    rest.is_empty().then_some(row)
}

fn chunk_row(rest: &mut &[u8]) -> Option<Key> {
    let target = TargetId(u64::from_be_bytes(take(rest)?));
    let inode = InodeId(u64::from_be_bytes(take(rest)?));
    let mut chunk = ChunkId::new(inode, u32::from_be_bytes(take(rest)?));
    let mut sort = take::<1>(rest)?[0];
    if sort == CLONE {
        // A clone of number 0 would be the chunk itself.
        chunk.snapshot = u32::from_be_bytes(take(rest)?);
        sort = take::<1>(rest).filter(|_| chunk.snapshot != 0)?[0];
    }
    Some(match sort {
        RECORD => Key::Chunk(target, chunk),
        PENDING => Key::Pending(target, chunk),
        PIECE => Key::Piece(target, chunk, u16::from_be_bytes(take(rest)?)),
        PATCH => {
            let piece = u16::from_be_bytes(take(rest)?);
            let sector = take::<1>(rest)?[0];
            Key::Patch(target, chunk, piece, sector, u64::from_be_bytes(take(rest)?))
        }
        _ => return None,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}
