//! The clock of leases: it never goes back, and goes on while the machine sleeps.

use std::{sync::LazyLock, time::Duration};

use rustix::time::{ClockId, clock_gettime};

pub(crate) fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("time since boot is not negative");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("below a second"))
}

/// Whole ticks at this time. All groups of a process count them alike, so that they wake together; processes
/// do not, or those of one machine would campaign in the same moment.
pub(crate) fn ticks(time: Duration, tick: Duration) -> u64 {
    (time.saturating_sub(*BEGAN).as_nanos() / tick.as_nanos().max(1)) as u64
}

/// When this tick was due.
pub(crate) fn time_of(ticks: u64, tick: Duration) -> Duration {
    *BEGAN + Duration::from_nanos(tick.as_nanos() as u64 * ticks)
}

static BEGAN: LazyLock<Duration> = LazyLock::new(now);
