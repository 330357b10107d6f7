//! What lies in a group's RocksDB: column family `raft` (below) and `kv-a`, `kv-b`, of which one holds
//! the state and the other is empty or being filled from a leader's snapshot.
//!
//! | key in `raft` | value |
//! |---|---|
//! | `identity` | [`Identity`] |
//! | `hard` | raft's `HardState` |
//! | `conf` | raft's `ConfState` as of `applied` |
//! | `members` | membership record as of `applied` |
//! | `applied` | index, u64 be |
//! | `truncated` | index and term before the first log entry, u64 be each |
//! | `active` | `kv-a` or `kv-b` |
//! | `log/` + index u64 be | raft's `Entry` |

use std::path::{Path, PathBuf};

use ff2_proto::GroupId;

pub(crate) const CF_RAFT: &str = "raft";
pub(crate) const CF_STATES: [&str; 2] = ["kv-a", "kv-b"];

pub(crate) const IDENTITY: &[u8] = b"identity";
pub(crate) const HARD: &[u8] = b"hard";
pub(crate) const CONF: &[u8] = b"conf";
pub(crate) const MEMBERS: &[u8] = b"members";
pub(crate) const APPLIED: &[u8] = b"applied";
pub(crate) const TRUNCATED: &[u8] = b"truncated";
pub(crate) const ACTIVE: &[u8] = b"active";
const LOG: &[u8; 4] = b"log/";

/// The highest version of this layout that is read. History: 1 = first; 2 = the same, and the log and the
/// state may have what came with feature level 2.
pub(crate) const FORMAT: u32 = ff2_proto::LEVEL;
/// Of new folders, until the group's cluster is known to be at a higher level.
pub(crate) const FIRST_FORMAT: u32 = 1;

/// A group begins here, not at 1: a replica with an empty log is then always fed by a snapshot, and
/// learns the first configuration from it.
pub(crate) const BOOT_INDEX: u64 = 5;
pub(crate) const BOOT_TERM: u64 = 5;

/// Whose folder this is. Written before anything else.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Identity {
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) group: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) node: u32,
    /// 0 until the leader let this folder in.
    #[prost(uint64, tag = "4")]
    pub(crate) raft_id: u64,
    /// Random, from the folder's making: a join that is asked for twice finds its raft id by it.
    #[prost(uint64, tag = "5")]
    pub(crate) incarnation: u64,
}

/// The folder of a group.
pub fn group_folder(data_dir: &Path, group: GroupId) -> PathBuf {
    data_dir.join(format!("group-{group}"))
}

pub(crate) fn log_key(index: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(LOG);
    key[4..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(crate) fn pair(first: u64, second: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_be_bytes());
    bytes[8..].copy_from_slice(&second.to_be_bytes());
    bytes
}

pub(crate) fn parse_pair(bytes: &[u8]) -> Option<(u64, u64)> {
    let (first, second) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*first), u64::from_be_bytes(second.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn bytes_on_disk_stay_as_they_are() {
        assert_eq!(log_key(0x0102), *b"log/\0\0\0\0\0\0\x01\x02");
        assert!(log_key(255) < log_key(256), "log entries lie in order");
        assert_eq!(parse_pair(&pair(7, 9)), Some((7, 9)));
        assert_eq!(parse_pair(&[0; 15]), None);
        let identity = Identity { format: 1, group: 2, node: 3, raft_id: 4, incarnation: 5 };
        assert_eq!(identity.encode_to_vec(), [8, 1, 16, 2, 24, 3, 32, 4, 40, 5]);
    }

    fn values() -> Vec<Vec<u8>> {
        let identity = Identity { format: 1, group: 2, node: 3, raft_id: 4, incarnation: 5 };
        vec![pair(7, 9).to_vec(), identity.encode_to_vec(), log_key(3).to_vec()]
    }

    #[test]
    fn damaged_values() {
        ff2_fuzz::target!(values(), |bytes| {
            match ff2_fuzz::bounded(bytes, || parse_pair(bytes)) {
                Some((first, second)) => assert_eq!(pair(first, second), bytes),
                None => assert_ne!(bytes.len(), 16),
            }
            if let Ok(identity) = ff2_fuzz::bounded(bytes, || Identity::decode(bytes)) {
                assert_eq!(Identity::decode(identity.encode_to_vec().as_slice()), Ok(identity));
            }
        });
    }
}
