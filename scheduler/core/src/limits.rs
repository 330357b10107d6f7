//! The bounds of what the machine holds.

/// Jobs that have not ended: ten times what a large cluster has.
pub const JOBS_MAX: u64 = 100_000;

/// Members of an array or replicas of a service.
pub const MEMBERS_MAX: u32 = 10_000;

/// Ends that are remembered, for jobs that come after: the oldest are forgotten.
pub const ENDED_MAX: usize = 100_000;

/// Tasks of a job; a task has a node's GPUs at most.
pub const TASKS_MAX: u32 = 100_000;

/// Tags that nodes ever had.
pub const TAGS_MAX: usize = 64;

/// Plans that stop or move somebody, of one round. The next round is a second later if there would be more.
pub const PLANS_MAX: u32 = 256;
