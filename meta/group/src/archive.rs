//! The file of a backup: the states of all groups, one after the other, each piece with its checksum.
//!
//! ```text
//! magic      16 bytes, MAGIC
//! frames     kind u8 | length of the body u32 le | CRC32C of kind, length and body u32 le | body
//!
//! HEADER     Header, once
//! GROUP      GroupBegin, then its pairs
//!   PAIRS    Pairs, with keys that grow from frame to frame; as many frames as there are pages
//!   GROUP_END  GroupEnd: how much there was
//! TRAILER    Trailer: how much there was in all, and CRC-64/NVME of all bytes before this frame; then the file ends
//! ```
//!
//! Bodies are protobuf messages. Writer and reader hold one frame in memory. The file has what users stored in small
//! files, all names and the key of inode numbers, but neither the cluster key nor any token: it is for its owner only.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{ArchiveError, Piece, Reader};
pub use write::Writer;

use ff2_proto::pb;

/// With bytes that a transfer in text mode would change.
const MAGIC: [u8; 16] = *b"ff2 backup\r\n\x1a\n\0\0";
/// Version of this layout. History: 1 = first.
const FORMAT: u32 = 1;
/// A page of a snapshot, with some more for its frame.
const BODY_BYTES_MAX: usize = (crate::limits::PAGE_BYTES_MAX as usize) * 2;

const HEADER: u8 = 1;
const GROUP: u8 = 2;
const PAIRS: u8 = 3;
const GROUP_END: u8 = 4;
const TRAILER: u8 = 5;

/// Of which cluster the backup is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Header {
    #[prost(uint32, tag = "1")]
    pub format: u32,
    #[prost(string, tag = "2")]
    pub cluster_id: String,
    /// When it began, in seconds since 1970.
    #[prost(uint64, tag = "3")]
    pub taken_at_s: u64,
    /// The release that made it.
    #[prost(string, tag = "4")]
    pub release: String,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct GroupBegin {
    #[prost(uint32, tag = "1")]
    pub group: u32,
    /// The state holds the log up to here.
    #[prost(uint64, tag = "2")]
    pub index: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pairs {
    #[prost(message, repeated, tag = "1")]
    pairs: Vec<pb::KeyValue>,
}

/// How much a group has, or all of them: of keys and values.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Amount {
    #[prost(uint64, tag = "1")]
    pub pairs: u64,
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, pairs: &[pb::KeyValue]) {
        self.pairs += pairs.len() as u64;
        self.bytes += pairs.iter().map(|p| (p.key.len() + p.value.len()) as u64).sum::<u64>();
    }
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Trailer {
    #[prost(uint32, tag = "1")]
    groups: u32,
    #[prost(message, required, tag = "2")]
    amount: Amount,
    #[prost(fixed64, tag = "3")]
    checksum: u64,
}

/// The part of a frame before its body.
fn head(kind: u8, body: &[u8]) -> [u8; 9] {
    let mut head = [0; 9];
    head[0] = kind;
    head[1..5].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&head[..5]);
    digest.update(body);
    head[5..].copy_from_slice(&(digest.finalize() as u32).to_le_bytes());
    head
}

/// Of the whole file.
fn whole() -> crc_fast::Digest {
    crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme)
}
