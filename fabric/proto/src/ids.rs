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
/// The first number of the trash's folders. Above all that a volume gives, and those of what snapshots show (63 bits).
pub const TRASH_INODES: InodeId = InodeId(1 << 63);
/// The folder of a volume's snapshots, in its root or that of a connection which sees a folder only.
pub const SNAPSHOTS_FOLDER: &[u8] = b".snapshots";

/// Whether there may be something under a name that no listing of its folder shows.
pub fn is_unlisted(parent: InodeId, name: &[u8]) -> bool {
    name == SNAPSHOTS_FOLDER || (parent == ROOT_INODE && name == TRASH_NAME)
}

/// The cluster group.
pub const CLUSTER_GROUP: GroupId = GroupId(0);

/// The scheduler's group. Its replicas are those of `ff2-schedd`.
pub const SCHED_GROUP: GroupId = GroupId(1_000);

/// A piece of a file: `index` counts chunks of the layout's chunk size from the file's start.
///
/// A chunk's clones follow it in order: what it was, kept for the snapshots up to `snapshot`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChunkId {
    pub inode: InodeId,
    pub index: u32,
    /// 0: as it is. In a read: as this snapshot shows it; else a clone.
    pub snapshot: u32,
}

impl ChunkId {
    /// A chunk as it is, in no snapshot.
    pub const fn new(inode: InodeId, index: u32) -> Self {
        Self { inode, index, snapshot: 0 }
    }

    /// The chunk of which this is a clone, or itself.
    #[must_use]
    pub const fn now(self) -> Self {
        Self { snapshot: 0, ..self }
    }

    /// What it is, or was, for a snapshot.
    #[must_use]
    pub const fn at(self, snapshot: u32) -> Self {
        Self { snapshot, ..self }
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk-{self}")
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.inode.0, self.index)?;
        if self.snapshot == 0 { Ok(()) } else { write!(f, "@{}", self.snapshot) }
    }
}

impl From<pb::ChunkKey> for ChunkId {
    fn from(key: pb::ChunkKey) -> Self {
        Self { inode: InodeId(key.inode), index: key.index, snapshot: key.snapshot }
    }
}

impl From<ChunkId> for pb::ChunkKey {
    fn from(id: ChunkId) -> Self {
        Self { inode: id.inode.0, index: id.index, snapshot: id.snapshot }
    }
}
