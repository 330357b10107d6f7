//! What bounds that which users hand in.

/// Longest script, bytes; Slurm's default as well.
pub const SCRIPT_BYTES_MAX: usize = 4 << 20;

/// Longest YAML, bytes: each byte of a script becomes four at most (`\x01`), and there is more than the script.
pub const YAML_BYTES_MAX: usize = 5 * SCRIPT_BYTES_MAX;

/// Most problems that are told at once. Who has more of them has handed in something else.
pub const PROBLEMS_MAX: usize = 100;

/// Most jobs of one array.
pub const ARRAY_JOBS_MAX: u32 = 100_000;

/// Most jobs that one job comes after.
pub const DEPENDENCIES_MAX: usize = 1_000;

/// How long a job may have to save what it needs, seconds.
pub const GRACE_SECONDS: std::ops::RangeInclusive<u16> = 5..=300;

/// From one checkpoint to the next, seconds: what the scheduler can tell apart, and shares out.
pub const CHECKPOINT_SECONDS: std::ops::RangeInclusive<u64> = 60..=24 * 3_600;

/// How long a step of a job may take, seconds.
pub const STEP_SECONDS: std::ops::RangeInclusive<u16> = 1..=3_600;

/// Longest path that a pattern becomes, bytes; what Linux takes.
pub const PATH_BYTES_MAX: usize = 4096;
