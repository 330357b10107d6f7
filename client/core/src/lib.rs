//! The client's decisions, without the client: what to ask of whom, what to do when it fails, what
//! to read ahead, which length to report.
//!
//! Everything here is a function of its inputs: the time comes in as `now`, randomness as a seed,
//! and what is to be done comes out as values. `ff2-fabric` (its chain client) and `ff2-client` do
//! the asking and the waiting; the simulator runs the same machines.
//!
//! - [`accesses`]: what was read, until the namespace knows the access times
//! - [`callbacks`]: what may be cached, until when
//! - [`retry`]: from a failure's class to the next step
//! - [`read_plan`], [`write_plan`]: from a range of a file to calls, and the order of writes
//! - [`health`]: which targets failed lately
//! - [`prefetch`]: what a sequential reader will want next
//! - [`lengths`]: how far this client wrote, and what it has not reported yet
//! - [`foresee`]: what the namespace will answer to a change that nobody else knows of yet
//! - [`folders`]: attributes and names of folders, as long as their callbacks are held
//! - [`inline`]: what it wrote into small files, and the namespace does not know yet
//! - [`rooms`]: what is left in quotas, and how much of it is spoken for
//! - [`sequence`]: exactly-once numbers, of namespace mutations and of chunk updates
//! - [`holds`]: which unlinked inodes must live because they are open here
//! - [`two_classes`]: which waiting operation of a user ring goes next
#![forbid(unsafe_code)]

pub mod accesses;
pub mod callbacks;
pub mod folders;
pub mod foresee;
pub mod health;
pub mod holds;
pub mod inline;
pub mod lengths;
pub mod limits;
pub mod prefetch;
pub mod read_plan;
pub mod retry;
pub mod rooms;
pub mod sequence;
pub mod two_classes;
pub mod write_plan;

pub use accesses::Accesses;
pub use callbacks::HeldCallbacks;
pub use folders::{Folders, Name, Page};
pub use health::TargetHealth;
pub use holds::OpenInodes;
pub use inline::InlineWrites;
pub use lengths::Lengths;
pub use prefetch::Prefetch;
pub use read_plan::{ReadBatch, ReadPlan, ReadSpan, plan_read, read_spans};
pub use retry::{Attempts, Failure, GiveUp, RetryPolicy, Step};
pub use rooms::Rooms;
pub use sequence::{Channels, Mutations};
pub use two_classes::TwoClasses;
pub use write_plan::{WriteOrder, WriteSpan, write_spans};

/// The next value of a SplitMix64 generator: jitter and spreading, nothing that must be secret.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
