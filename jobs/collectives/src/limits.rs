//! Bounds of what travels and how long is waited for it.

use std::time::Duration;

/// Bytes of one piece: large enough that a call costs little beside them, small enough that the next rank begins soon.
pub(crate) const PIECE_BYTES: usize = 256 << 10;
/// Pieces to one rank, of one stream and tag, that it has not taken yet.
pub(crate) const WINDOW: usize = 8;
/// Of the pieces of one operation: two trees, up and down.
pub(crate) const TAGS: usize = 4;
/// Memory for pieces that go out; who finds it lent waits for the pieces before.
pub(crate) const SEND_BYTES: u64 = 64 << 20;
/// Memory for pieces that came in, at least.
pub(crate) const RECEIVE_BYTES: u64 = 64 << 20;
/// Streams whose windows have memory at the receiver: one each for gradients, experts, copies and others.
pub(crate) const STREAMS_FORESEEN: usize = 4;
/// Operations that wait in one stream; who starts more waits.
pub(crate) const OPERATIONS_MAX: usize = 256;
pub(crate) const RANKS_MAX: usize = 4096;

/// How long ranks wait for each other at the beginning: a large job's processes start within minutes.
pub(crate) const MEET_TIMEOUT: Duration = Duration::from_secs(300);
/// Pause before rank 0 is asked again.
pub(crate) const MEET_PAUSE: Duration = Duration::from_millis(100);
/// What rank 0's own time limit is given to be told to those that came.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(2);
/// How long an operation waits for a rank that lives but sends nothing: above any pause of a training run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1800);
/// How long the news of who failed first may take.
pub(crate) const NEWS_TIME: Duration = Duration::from_secs(1);
/// A watch is asked for anew after this time.
pub(crate) const WATCH_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long a rank that is done waits for the others to be done too.
pub(crate) const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
