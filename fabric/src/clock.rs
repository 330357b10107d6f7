//! The clock that deadlines are on.

use std::time::Instant;

/// Now, on the clock of tokio's timers.
///
/// Outside simulations that is the system's monotonic clock, at the same price. In one it is the
/// clock that the runtime moves on by itself: a deadline that was taken from the other would be
/// over at another moment than the timer that waits for it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
