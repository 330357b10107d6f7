//! Which fault comes next. Each seed has its own taste.

use std::time::Duration;

use crate::{
    net::Place,
    rng::Rng,
    world::{METADS, STORAGEDS},
};

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Loses what was not synced.
    Crash {
        places: Vec<Place>,
        back_after: Duration,
    },
    /// Crashes a process whose disks are then replaced by empty ones, if what they hold is elsewhere.
    Wipe {
        place: Place,
        back_after: Duration,
    },
    /// From everybody, or from the metads only: then clients and neighbours still reach a node that is
    /// about to be declared dead.
    Isolate {
        place: Place,
        from_metads: bool,
    },
    /// As SIGSTOP: the process does nothing, then goes on as if no time had passed.
    Pause {
        place: Place,
        until_after: Duration,
    },
    Heal,
}

#[derive(Debug)]
pub(crate) struct Faults {
    rng: Rng,
    /// Weights of crash, isolate, pause, heal, a wipe of storage, one of a metad, and of everything
    /// dying at once.
    weights: [u64; 7],
    pause_ms: u64,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "faults");
        let weights = [
            rng.within(0..10),
            rng.within(0..6),
            rng.within(0..6),
            rng.within(2..8),
            rng.within(0..3),
            rng.within(0..2),
            rng.within(0..3),
        ];
        let pause_ms = rng.within(400..4_000);
        Self { rng, weights, pause_ms }
    }

    pub(crate) fn next(&mut self) -> Fault {
        let total: u64 = self.weights.iter().sum();
        let mut draw = self.rng.within(0..total);
        let mut kind = 0;
        while draw >= self.weights[kind] {
            draw -= self.weights[kind];
            kind += 1;
        }
        let servers: Vec<Place> = METADS.into_iter().chain(STORAGEDS).collect();
        let place = *self.rng.pick(&servers).expect("there are servers");
        match kind {
            0 => {
                let back_after = Duration::from_millis(self.rng.within(100..9_000));
                Fault::Crash { places: vec![place], back_after }
            }
            1 => Fault::Isolate { place, from_metads: self.rng.chance(40) },
            2 => {
                let until_after = Duration::from_millis(self.rng.within(200..6_000));
                Fault::Pause { place, until_after }
            }
            3 => Fault::Heal,
            4 | 5 => {
                let places = if kind == 4 { &STORAGEDS[..] } else { &METADS[..] };
                let place = *self.rng.pick(places).expect("there are processes of each kind");
                let back_after = Duration::from_millis(self.rng.within(100..9_000));
                Fault::Wipe { place, back_after }
            }
            _ => {
                // A power cut of all storage, of all metads, or of both.
                let places = match self.rng.within(0..3) {
                    0 => STORAGEDS.to_vec(),
                    1 => METADS.to_vec(),
                    _ => servers,
                };
                let back_after = Duration::from_millis(self.rng.within(100..6_000));
                Fault::Crash { places, back_after }
            }
        }
    }

    pub(crate) fn pause(&mut self) -> Duration {
        Duration::from_millis(self.rng.within(self.pause_ms / 4..self.pause_ms * 2))
    }
}
