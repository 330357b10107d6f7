//! Newtypes for every id and version, so that none is taken for another.

use std::fmt;

use crate::pb;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

id!(
    /// A machine or process that joined the cluster.
    NodeId(u32), "node-");
id!(
    /// One chain member's store on one disk.
    TargetId(u64), "target-");
id!(
    /// A replication chain.
    ChainId(u32), "chain-");
id!(
    /// Grows with each change of a chain's members or their states.
    ChainVersion(u64), "cv");
id!(
    /// A chain table: the list of chains that layouts refer to.
    TableId(u32), "table-");
id!(
    /// A file, directory or other object of a volume. Never reused.
    InodeId(u64), "inode-");
id!(
    /// A namespace tree with its own root.
    VolumeId(u32), "volume-");
id!(
    /// A mount's or library user's registration with a namespace.
    SessionId(u64), "session-");
id!(
    /// A replicated group; 0 is the cluster's.
    GroupId(u32), "group-");
id!(
    /// Version of a chunk's content: each update makes the next.
    ChunkVersion(u64), "v");
id!(
    /// Version of the cluster's routing information.
    RoutingVersion(u64), "rv");

/// The root directory of every volume.
pub const ROOT_INODE: InodeId = InodeId(1);

/// What the root of a volume shows under this name is made up (`namespace/trash/folder.rs` of `ff2-meta-core`), and
/// changes with every removal.
pub const TRASH_NAME: &[u8] = b".trash";

/// The cluster group.
pub const CLUSTER_GROUP: GroupId = GroupId(0);

/// A piece of a file: `index` counts chunks of the layout's chunk size from the file's start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChunkId {
    pub inode: InodeId,
    pub index: u32,
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk-{}.{}", self.inode.0, self.index)
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.inode.0, self.index)
    }
}

impl From<pb::ChunkKey> for ChunkId {
    fn from(key: pb::ChunkKey) -> Self {
        Self { inode: InodeId(key.inode), index: key.index }
    }
}

impl From<ChunkId> for pb::ChunkKey {
    fn from(id: ChunkId) -> Self {
        Self { inode: id.inode.0, index: id.index }
    }
}
