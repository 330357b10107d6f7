//! Bounds of an agent.

use std::time::Duration;

/// Buffers of the data plane: its messages carry no bulk bytes.
pub const BUFFER_BYTES: u64 = 8 << 20;

/// How long a question is held at most while there is nothing new. The scheduler holds it for less if the lease is
/// short.
pub const WAIT: Duration = Duration::from_secs(2);

/// Beyond that, one replica that hangs is not waited for: well within a lease another one must have answered.
pub const SLACK: Duration = Duration::from_secs(1);

/// After that somebody should have answered.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// After a question that nobody answered.
pub const PAUSE: Duration = Duration::from_millis(500);

/// Between two looks whether a run has ended, and whether its keeper is there.
pub const LOOK: Duration = Duration::from_millis(200);
pub const KEEPER_LOOK: Duration = Duration::from_secs(2);

/// For looking what of jobs' inputs is cached: in all, and files of one input.
pub const DATA_TIME: Duration = Duration::from_millis(400);
pub const DATA_FILES: usize = 256;

/// So long another node may measure the way to this one.
pub const PAIR_TIME: Duration = Duration::from_secs(60);

/// Bytes of a note.
pub const NOTE_BYTES_MAX: usize = 500;

/// Bytes of a job's chart.
pub const CHART_BYTES_MAX: usize = 8 << 10;
