//! Bounds of schedd.

use std::time::Duration;

/// Buffers of the data plane: its messages carry no bulk bytes.
pub const BUFFER_BYTES: u64 = 16 << 20;

/// Between two looks of the leader at who is silent.
pub const LOOK: Duration = Duration::from_millis(512);

/// How often figures for metrics are made, at most: each is a look at all jobs.
pub const GAUGES_STEP: Duration = Duration::from_secs(1);

/// A command of the leader's own.
pub const OWN_COMMAND: Duration = Duration::from_secs(5);

/// An agent's question is held for this part of its lease at most, so that a lost answer costs no run.
pub const HOLD_PART: u32 = 4;

/// Left of a caller's deadline when a held call is answered.
pub const ANSWER_MARGIN: Duration = Duration::from_millis(100);

/// Between two looks of a replica that starts at whether it votes.
pub const VOTES_LOOK: Duration = Duration::from_millis(50);

/// Jobs of one listing, and what is told of who ran where.
pub const LISTED: u32 = 1_000;
pub const RUNS_LISTED: usize = 500;

/// Nodes are asked so often what of the inputs of waiting jobs they have in their caches.
pub const INPUTS_STEP_MS: u64 = 60_000;

/// Between two looks whether all have answered that.
pub const INPUTS_LOOK: Duration = Duration::from_millis(20);

pub const TAG_BYTES_MAX: usize = 64;

/// Bytes of a submission, with its script and environment.
pub const REQUEST_BYTES_MAX: usize = 192 << 10;

/// How often a job that asks for it is started again after failures of its own.
pub const RESTARTS: u32 = 3;
