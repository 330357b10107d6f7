//! Bounds of the scheduler's replicated state.

/// Commands that are kept beside the facts; with one more the facts are written anew.
pub const COMMANDS_KEPT: usize = 4_096;

/// Bytes of facts in one value.
pub(crate) const FACTS_PART: usize = 256 << 10;

/// What was submitted is kept for so many submissions after their end; the oldest are forgotten.
pub const ENDED_ORDERS_KEPT: usize = 10_000;

/// Runs that are over, and jobs that have ended, of which it is still told; the oldest are forgotten.
pub const RUNS_KEPT: usize = 4_000;
pub const ENDED_KEPT: usize = 4_000;

/// Changes of jobs by people, of which it is still told.
pub const CHANGES_KEPT: usize = 4_000;

/// How long after the end of its lease nothing is left of a run: keepers end it at once.
pub const FENCE_MARGIN_MS: u64 = 5_000;

/// Paths of which nodes are asked whether they are cached, and the bytes of one.
pub const INPUTS_ASKED: usize = 64;
pub const INPUT_BYTES_MAX: usize = 4_096;

/// So long nodes have to say it: a submission waits for that.
pub const INPUTS_WAIT_MS: u64 = 1_500;

/// A node holds an input if it has so many thousandths of it.
pub const HELD_PERMILLE: u32 = 500;

/// So long a node is waited for that another one is to be measured with.
pub const PAIR_WAIT_MS: u64 = 10_000;

/// Network ports of a node that are watched.
pub const LINKS_MAX: usize = 64;

/// Nodes without jobs whose ports are watched: as many as a cluster has (`NODES_MAX` of the metadata).
pub const WATCHED_MAX: usize = 4_096;

/// Bytes a second are told over so long at least.
pub const RATE_STEP_MS: u64 = 1_000;

/// A port is hot that has been so busy for so long.
pub const HOT_PERMILLE: u32 = 900;
pub const HOT_MS: u64 = 10_000;

/// A port flaps that went down so often in such a time.
pub const FLAPS: u64 = 3;
pub const FLAP_WINDOW_MS: u64 = 600_000;

/// Readings with faults of one port that are kept.
pub const FAULTS_KEPT: usize = 64;

/// From which the port is taken that rank 0 may listen on: above what servers of a local cluster take, below what Linux
/// gives to outgoing connections.
pub const MASTER_PORTS: (u16, u16) = (31_000, 32_700);

/// Bytes of a note.
pub const NOTE_BYTES_MAX: usize = 1_024;

/// Bytes of what a submission says beside what the core must know: the script, its environment.
pub const ORDER_BYTES_MAX: usize = 256 << 10;

/// Bytes of the name that a client gives a submission, to know it again.
pub const KEY_BYTES_MAX: usize = 64;

/// Nodes that ever joined.
pub const NODES_MAX: usize = 20_000;
