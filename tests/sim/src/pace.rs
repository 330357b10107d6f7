//! How hard clients work. Each seed draws its own: bursts, in which clients meet, with rests between
//! them, in which a cluster that lives for minutes costs little to simulate.

use crate::rng::Rng;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    rest_percent: u64,
    rest_ms: u64,
}

impl Pace {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "pace");
        Self { rest_percent: rng.within(10..50), rest_ms: rng.within(1_000..10_000) }
    }

    /// Milliseconds between an answer and the next operation.
    pub(crate) fn pause_ms(self, rng: &mut Rng) -> u64 {
        let rests = rng.chance(self.rest_percent);
        rng.within(if rests { 200..self.rest_ms } else { 5..120 })
    }
}
