//! Bounds of the cluster machine.

/// Metads take their ids from their configuration, below this; storage nodes are numbered from it.
pub const STORAGED_ID_FIRST: u32 = 101;
/// Replicas of a chain. Each one more costs a network hop of every write.
pub const REPLICAS_MAX: u32 = 8;
/// Chains of one table: a client shuffles them for each file.
pub const TABLE_CHAINS_MAX: usize = 16_384;
/// Targets that a disk gets from a table of default size: enough that the loss of a disk spreads
/// its recovery over several others, few enough that each keeps long runs of chunks.
pub const TARGETS_PER_DISK: u32 = 6;
pub const NODES_MAX: usize = 4_096;
pub const DISKS_PER_NODE_MAX: usize = 64;
pub const VOLUMES_MAX: usize = 4_096;
pub const USERS_MAX: usize = 65_536;
pub const TOKENS_PER_USER_MAX: usize = 64;
/// Groups of a user, as Linux `NGROUPS_MAX` would allow more than any token should carry.
pub const USER_GROUPS_MAX: usize = 256;
/// Tokens that are refused for ever, and travel in every routing delta.
pub const REVOKED_TOKENS_MAX: usize = 65_536;
/// Bytes of a name, an address or a description.
pub const TEXT_BYTES_MAX: usize = 255;
/// Targets that are made anew at the same time, so that what is left of the cluster can also serve.
pub const SPARES_AT_ONCE: usize = 16;
/// Moves that a disk takes part in at the same time, as the one that is left and as the one that is filled.
pub const MOVES_PER_DISK: usize = 2;
/// Nothing is made anew on, or moved to, a disk that would be this full with it: files that are there grow,
/// and the rest keeps an overwrite from finding no block.
pub const FILL_PERCENT_MAX: u64 = 85;
/// A newcomer whose disk or node is away for so long is given up, and another place is looked for.
pub const NEWCOMER_PATIENCE_MS: u64 = 60_000;
/// Targets that are looked at for the list of those without a place, which each status tells anew.
pub const STUCK_LOOKED_AT: usize = 1_024;
/// A chain settles within a few decisions; more would be an oscillation, which is a bug.
pub(super) const DECISIONS_MAX: u32 = 8;
/// The level of a cluster whose metads all know of members that give way.
pub const WAYS_LEVEL: u32 = 3;
/// ... of a node's addresses in several zones.
pub const ADDRESSES_LEVEL: u32 = 3;
