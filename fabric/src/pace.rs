//! The moments in which a machine does its periodic work: the same for all of it, so that one with nothing to
//! do wakes once for everything, not once for each thing.
//!
//! A period is best a power of two of [`SLOT`]s. The runtime's timers lie in slots of 64 ms, counted from its
//! own beginning: it wakes when a slot begins, sorts the slot's timers, and wakes again for each. A timer at the
//! very beginning of a slot costs one wake. So runtimes begin with a slot of the machine's clock.

use std::{cell::Cell, io, sync::LazyLock, thread, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};

use crate::clock;

pub const SLOT: Duration = Duration::from_millis(64);
/// Periods that are a part of this are kept by all processes of a machine alike.
const ROUND: Duration = Duration::from_millis(64 << 10);

thread_local! {
    /// This thread works for a runtime that keeps the pace. Others may have a clock of their own.
    static KEEPS: Cell<bool> = const { Cell::new(false) };
}

/// Timers are rounded up to this: a runtime that began later after a slot than this has its own in between.
const TICK: Duration = Duration::from_millis(1);
/// On a machine so busy that it is late each time, a runtime begins as it can.
const TRIES: u32 = 16;

/// Builds a runtime whose work keeps the pace: at the beginning of a slot, for which it waits. The thread of one
/// that has no threads of its own says so itself, by [`keep`].
pub fn runtime(builder: &mut Builder) -> io::Result<Runtime> {
    builder.on_thread_start(keep);
    let mut built = build_at_slot(builder)?;
    for _ in 1..TRIES {
        let (runtime, late) = built;
        if late < TICK {
            return Ok(runtime);
        }
        runtime.shutdown_background();
        built = build_at_slot(builder)?;
    }
    Ok(built.0)
}

/// The calling thread works for a runtime that keeps the pace.
pub fn keep() {
    KEEPS.set(true);
}

/// A runtime, and how long after the beginning of the slot it was there.
fn build_at_slot(builder: &mut Builder) -> io::Result<(Runtime, Duration)> {
    let begins = common(now(), SLOT);
    thread::sleep(begins.saturating_duration_since(now()));
    let runtime = builder.build()?;
    Ok((runtime, now().saturating_duration_since(begins)))
}

/// The next moment to do what is done once in a `period`; never now, though it may be soon.
pub fn next(period: Duration) -> Instant {
    after(now(), period)
}

/// The next such moment after one that may be long ago.
pub fn after(at: Instant, period: Duration) -> Instant {
    if KEEPS.get() { common(at, period) } else { at + period }
}

fn common(at: Instant, period: Duration) -> Instant {
    let period = period.max(Duration::from_millis(1)).as_nanos();
    let gone = at.saturating_duration_since(*BEGAN).as_nanos() / period;
    let nanos = (gone + 1).saturating_mul(period);
    *BEGAN + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The period of whole slots that is nearest to this one; those below a slot are kept.
pub fn rounded(period: Duration) -> Duration {
    let slots = (period + SLOT / 2).as_nanos() / SLOT.as_nanos();
    if period < SLOT { period } else { SLOT * u32::try_from(slots).unwrap_or(u32::MAX) }
}

/// Until the next moment of this period.
pub async fn pause(period: Duration) {
    tokio::time::sleep_until(next(period)).await;
}

/// A moment before now at which all periods began, on the machine's clock.
static BEGAN: LazyLock<Instant> = LazyLock::new(|| {
    // The clock of `Instant`.
    let clock = clock_gettime(ClockId::Monotonic);
    let since_boot = Duration::new(clock.tv_sec as u64, clock.tv_nsec as u32);
    let gone = since_boot.as_nanos() % ROUND.as_nanos();
    Instant::from_std(std::time::Instant::now()) - Duration::from_nanos(gone as u64)
});

fn now() -> Instant {
    clock::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_common_period_is_done_in_the_same_moment() {
        let runtimes = [1, 2]
            .map(|n| runtime(Builder::new_multi_thread().worker_threads(n).enable_all()).unwrap());
        let slots = |n: u32| SLOT * n;
        let work = runtimes.iter().flat_map(|runtime| {
            [slots(4), slots(8), slots(16)].map(|period| {
                runtime.spawn(async move {
                    pause(period).await;
                    now()
                })
            })
        });
        for woken in work.collect::<Vec<_>>() {
            let woken = runtimes[0].block_on(woken).unwrap();
            let after = (woken - *BEGAN).as_nanos() % slots(4).as_nanos();
            let after = Duration::from_nanos(u64::try_from(after).unwrap());
            assert!(after < slots(2), "{after:?} after a common moment");
        }
    }

    #[test]
    fn the_next_moment_is_at_most_a_period_away() {
        for period in [SLOT, SLOT * 8, Duration::from_millis(333)] {
            for ms in [0, 1, 63, 64, 65, 400, 100_000] {
                let at = now() + Duration::from_millis(ms);
                let next = common(at, period);
                assert!(next > at && next <= at + period);
                assert_eq!(common(next, period), next + period);
            }
        }
    }

    #[test]
    fn a_period_is_rounded_to_whole_slots() {
        let ms = |ms| Duration::from_millis(ms);
        let rounded = [20, 64, 95, 96, 500, 1_000].map(|period| rounded(ms(period)));
        assert_eq!(rounded, [20, 64, 64, 128, 512, 1_024].map(ms));
    }
}
