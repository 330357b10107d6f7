//! Bounds of a run.

use std::time::Duration;

/// Ranks of one node.
pub const RANKS_MAX: u32 = 1_024;
/// How long a job may take to make room: what it may ask for, and what it gets if it says nothing.
pub const GRACE_MIN: Duration = Duration::from_secs(5);
pub const GRACE_MAX: Duration = Duration::from_secs(300);
pub const GRACE: Duration = Duration::from_secs(30);
/// After SIGTERM, for those whose job was cancelled or whose fellow failed.
pub const TERM_GRACE: Duration = Duration::from_secs(5);
/// The longest state word, in bytes.
pub const STATE_MAX: u64 = 4_096;
/// How long a keeper may take to begin.
pub(crate) const KEEPER_START: Duration = Duration::from_secs(20);
/// ... and to answer.
pub(crate) const KEEPER_ANSWER: Duration = Duration::from_secs(5);
/// How long a node waits for the script that the first of its job puts down.
pub(crate) const SCRIPT_WAIT: Duration = Duration::from_secs(60);
/// ... and for the port that it takes.
pub(crate) const PORT_WAIT: Duration = Duration::from_secs(20);
/// Ports that are tried, one after the other.
pub(crate) const PORTS_TRIED: u16 = 64;
/// Between two looks whether a run's time is over.
pub(crate) const LEASE_LOOK: Duration = Duration::from_millis(200);
/// Between two looks for an acknowledgement.
pub(crate) const ACK_LOOK: Duration = Duration::from_millis(20);
/// Between two looks whether those that were killed are gone.
pub(crate) const END_LOOK: Duration = Duration::from_millis(5);
/// A process that does not end that long after SIGKILL hangs in the kernel.
pub(crate) const END_MAX: Duration = Duration::from_secs(20);
/// Output of a rank that is read at once.
pub(crate) const LOG_READ: usize = 64 << 10;
/// Output that waits while the log cannot be written; older is dropped, and counted.
pub(crate) const LOG_HELD: usize = 1 << 20;
/// Between two tries to write a log whose disk is full.
pub(crate) const LOG_RETRY: Duration = Duration::from_secs(1);
