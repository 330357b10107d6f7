//! Bounds of this crate.

use std::time::Duration;

/// A daemon that was asked to stop has this long; then it exits and replication covers the rest.
pub const DRAIN: Duration = Duration::from_secs(15);
/// After the daemon's function returned, its remaining tasks have this long.
pub const TASKS: Duration = Duration::from_secs(5);
/// A part of the process that is asked for its state answers within this, or is reported as stuck.
pub const PROVIDER: Duration = Duration::from_secs(2);
/// Operations listed by `/inflight`, oldest first.
pub const IN_FLIGHT_LISTED: usize = 1_000;
/// Bytes that an admin client takes from an answer.
pub const ANSWER_BYTES: usize = 256 << 20;
/// Connections of one port for people and tools; more wait.
pub const ADMIN_CONNECTIONS: usize = 128;
/// Such a connection is closed when nothing moves on it for so long.
pub const ADMIN_SILENCE: Duration = Duration::from_secs(60);
/// A whole question over the admin socket.
pub const ADMIN: Duration = Duration::from_secs(10);
