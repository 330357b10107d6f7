//! The clock of leases: it never goes back, and goes on while the machine sleeps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

pub(crate) fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("time since boot is not negative");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("below a second"))
}
