//! The servers' clocks: each runs at its own rate, and some stray.
//!
//! Leases compare times on different clocks, so they assume a bound on how far these run apart. Within
//! it ([`Clocks::new`]) all promises hold. A seed may have one clock that leaves the bound for a while
//! ([`Clocks::stray`]): docs/SEMANTICS.md says what holds then. Clients have true clocks, because a
//! history is judged by true time.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use crate::{
    net::Place,
    rng::Rng,
    world::{METADS, STORAGEDS},
};

/// Of true time.
const TRUE_PPM: u64 = 1_000_000;
/// Between metads a leader reads under a lease of 0.7 of the time that its followers wait before they
/// vote, less a tick.
const METAD_PPM: Range<u64> = 900_000..1_100_000;
/// A storage node fences itself at half of what a metad waits.
const STORAGED_PPM: Range<u64> = 600_000..1_400_000;
/// Far outside of both.
const STRAY_PPM: [Range<u64>; 2] = [50_000..400_000, 2_500_000..10_000_000];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it showed, and when, as its rate last changed.
    shown: Duration,
    since: Duration,
    ppm: u64,
}

impl Clock {
    const TRUE: Self = Self { shown: Duration::ZERO, since: Duration::ZERO, ppm: TRUE_PPM };

    pub(crate) fn shows(&self, now: Duration) -> Duration {
        self.shown + scaled(now.saturating_sub(self.since), self.ppm, TRUE_PPM)
    }

    /// The true time that passes while the clock goes on by `by`.
    pub(crate) fn lasts(&self, by: Duration) -> Duration {
        scaled(by, TRUE_PPM, self.ppm)
    }

    fn set_rate(&mut self, now: Duration, ppm: u64) {
        *self = Self { shown: self.shows(now), since: now, ppm };
    }
}

fn scaled(time: Duration, up: u64, down: u64) -> Duration {
    if up == down {
        return time;
    }
    let nanos = time.as_nanos() * u128::from(up) / u128::from(down);
    Duration::from_nanos(u64::try_from(nanos).expect("a run lasts minutes"))
}

/// All clocks of a run.
#[derive(Debug)]
pub(crate) struct Clocks {
    clocks: BTreeMap<Place, Clock>,
    rng: Rng,
    /// Whose clock may leave the bound.
    pub(crate) stray: Option<Place>,
}

impl Clocks {
    pub(crate) fn all_true(seed: u64) -> Self {
        Self { clocks: BTreeMap::new(), rng: Rng::new(seed, "clocks"), stray: None }
    }

    /// Within the bound. In three seeds of ten they are all true; in one of eight one will stray.
    pub(crate) fn new(seed: u64) -> Self {
        let mut clocks = Self::all_true(seed);
        let rng = &mut clocks.rng;
        let all_true = rng.chance(30);
        for place in METADS.into_iter().chain(STORAGEDS) {
            let bound = if METADS.contains(&place) { METAD_PPM } else { STORAGED_PPM };
            let ppm = rng.within(bound);
            // They began to run at different times.
            let shown = Duration::from_millis(rng.within(0..3_600_000));
            let ppm = if all_true { TRUE_PPM } else { ppm };
            clocks.clocks.insert(place, Clock { shown, since: Duration::ZERO, ppm });
        }
        if rng.within(0..8) == 0 {
            let servers: Vec<Place> = METADS.into_iter().chain(STORAGEDS).collect();
            clocks.stray = rng.pick(&servers).copied();
        }
        clocks
    }

    pub(crate) fn of(&self, place: Place) -> Clock {
        self.clocks.get(&place).copied().unwrap_or(Clock::TRUE)
    }

    /// The clock that may leaves the bound, or returns to true time. Says what it does now.
    pub(crate) fn stray(&mut self, now: Duration) -> Option<String> {
        let place = self.stray?;
        let back = self.rng.chance(40);
        let [slow, fast] = STRAY_PPM;
        let stray = if self.rng.chance(70) { slow } else { fast };
        let ppm = if back { TRUE_PPM } else { self.rng.within(stray) };
        self.clocks.get_mut(&place)?.set_rate(now, ppm);
        Some(format!("the clock of {place} runs at {:.2}", ppm as f64 / TRUE_PPM as f64))
    }

    /// No clock is outside of the bound any more.
    pub(crate) fn settle(&mut self, now: Duration) {
        if let Some(clock) = self.stray.and_then(|place| self.clocks.get_mut(&place)) {
            clock.set_rate(now, TRUE_PPM);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_on_from_where_it_was() {
        let mut clock = Clock::TRUE;
        clock.set_rate(Duration::from_secs(10), 500_000);
        assert_eq!(clock.shows(Duration::from_secs(14)), Duration::from_secs(12));
        assert_eq!(clock.lasts(Duration::from_secs(1)), Duration::from_secs(2));
        clock.set_rate(Duration::from_secs(14), TRUE_PPM);
        assert_eq!(clock.shows(Duration::from_secs(15)), Duration::from_secs(13));
    }

    /// The two inequalities from which the bounds follow, with the settings that the simulated cluster has.
    #[test]
    fn the_bounds_are_those_that_the_leases_bear() {
        let (slowest, fastest) = (METAD_PPM.start as f64, METAD_PPM.end as f64);
        // In ticks, of which ten are an election timeout.
        assert!(7.0 / slowest < 9.0 / fastest, "no lease outlives the silence of its followers");
        assert!(
            0.5 / (STORAGED_PPM.start as f64) < 1.0 / fastest,
            "a fence comes before the death"
        );
    }
}
