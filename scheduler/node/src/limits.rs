//! Bounds of what is made on a node, and of waiting for it.

use std::time::Duration;

/// Processes and threads of one run, if nothing else is said: many loaders of data on each of some hundred cores,
/// and few enough that a fork bomb leaves the node its process numbers (4 Mi on 64-bit Linux).
pub const PIDS: u32 = 32_768;
/// Length of a confinement's name; folders of control groups allow 255.
pub const NAME_MAX: usize = 64;
/// Control groups below one another that a task with rights may have made, to be removed with its run.
pub const DEPTH_MAX: usize = 16;
/// Rounds of moving processes out of the group that is to be divided: those that fork meanwhile need another one.
pub const MOVE_ROUNDS: usize = 16;
/// Network ports of one node that are told of.
pub const LINKS_MAX: usize = 64;
/// GPUs of one node whose numbers a guard can hold.
pub const GPUS_MAX: usize = 64;
/// Records of the kernel's log that are searched for errors of GPUs.
pub const LOG_RECORDS_MAX: usize = 100_000;
/// ... and how long the search may take.
pub const LOG_TIME_MAX: Duration = Duration::from_secs(2);
