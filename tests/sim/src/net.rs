//! The simulated network: delay, loss, duplication, reordering (by unequal delays) and partitions.

use std::{collections::BTreeSet, time::Duration};

use crate::rng::Rng;

/// A process of the simulated cluster.
pub(crate) type Place = u32;

/// How bad the network is. Each seed draws its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) loss_percent: u64,
    pub(crate) duplicate_percent: u64,
    /// Messages that take `slow` instead of `fast`.
    pub(crate) slow_percent: u64,
}

const FAST_US: std::ops::Range<u64> = 50..500;
const SLOW_US: std::ops::Range<u64> = 5_000..400_000;

#[derive(Debug)]
pub(crate) struct Net {
    rng: Rng,
    weather: Weather,
    /// Ordered pairs between which nothing passes.
    cut: BTreeSet<(Place, Place)>,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "net");
        let weather = Weather {
            loss_percent: rng.within(0..6),
            duplicate_percent: rng.within(0..4),
            slow_percent: rng.within(0..8),
        };
        Self { rng, weather, cut: BTreeSet::new() }
    }

    /// When the copies of one message arrive: none if it is lost, several if it is duplicated.
    pub(crate) fn delays(&mut self, from: Place, to: Place) -> Vec<Duration> {
        if self.cut.contains(&(from, to)) || self.rng.chance(self.weather.loss_percent) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.rng.chance(self.weather.duplicate_percent));
        (0..copies).map(|_| self.delay()).collect()
    }

    fn delay(&mut self) -> Duration {
        let slow = self.rng.chance(self.weather.slow_percent);
        Duration::from_micros(self.rng.within(if slow { SLOW_US } else { FAST_US }))
    }

    /// Cuts one place off, in one direction or both.
    pub(crate) fn isolate(&mut self, place: Place, places: &[Place]) {
        let both = self.rng.chance(70);
        for &other in places.iter().filter(|&&other| other != place) {
            self.cut.insert((place, other));
            if both {
                self.cut.insert((other, place));
            }
        }
    }

    /// Cuts the way between two places, in both directions.
    pub(crate) fn cut(&mut self, one: Place, other: Place) {
        self.cut.extend([(one, other), (other, one)]);
    }

    /// Everything passes again, and the weather clears up.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn calm(&mut self) {
        self.heal();
        self.weather = Weather { loss_percent: 0, duplicate_percent: 0, slow_percent: 0 };
    }
}
