//! Which fault comes next. Each seed has its own taste.

use std::time::Duration;

use crate::{
    disk::Damage,
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
    /// Crashes a process whose disks (or one of them) are then replaced by empty ones, if what they hold
    /// is elsewhere. An index or log that is damaged where it was synced is such a loss: a start refuses it.
    Wipe {
        place: Place,
        only_one: bool,
        back_after: Duration,
    },
    /// A block of one of this node's disks is not what was written there, if another replica is whole.
    Damage {
        place: Place,
        damage: Damage,
    },
    /// From everybody, or from the metads only: then clients and neighbours still reach a node that is
    /// about to be declared dead.
    Isolate {
        place: Place,
        from_metads: bool,
    },
    /// Between two storage nodes nothing passes, while all others reach both.
    Cut {
        between: (Place, Place),
    },
    /// As SIGSTOP: the process does nothing, then goes on as if no time had passed.
    Pause {
        place: Place,
        until_after: Duration,
    },
    Heal,
    /// A metad is added, or taken out.
    Membership,
    /// The clock that may leaves the bound that leases assume, or comes back.
    Clock,
}

/// Each with the largest weight that a seed may give it, and the smallest.
const KINDS: [(Kind, std::ops::Range<u64>); 10] = [
    (Kind::Crash, 0..10),
    (Kind::Isolate, 0..6),
    (Kind::Pause, 0..6),
    (Kind::Heal, 2..8),
    (Kind::WipeStorage, 0..3),
    (Kind::WipeMetad, 0..2),
    (Kind::PowerCut, 0..3),
    (Kind::Damage, 0..8),
    (Kind::Membership, 0..4),
    (Kind::Clock, 0..6),
];

#[derive(Clone, Copy, Debug)]
enum Kind {
    Crash,
    Isolate,
    Pause,
    Heal,
    WipeStorage,
    WipeMetad,
    PowerCut,
    Damage,
    Membership,
    Clock,
}

#[derive(Debug)]
pub(crate) struct Faults {
    rng: Rng,
    weights: [u64; KINDS.len()],
    pause_ms: u64,
    /// Single ways are cut rather than all of a place.
    cuts_ways: bool,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "faults");
        let weights = KINDS.map(|(_, range)| rng.within(range));
        let pause_ms = rng.within(600..6_000);
        Self { rng, weights, pause_ms, cuts_ways: seed % 5 == 2 }
    }

    pub(crate) fn next(&mut self) -> Fault {
        let total: u64 = self.weights.iter().sum();
        let mut draw = self.rng.within(0..total);
        let mut kind = 0;
        while draw >= self.weights[kind] {
            draw -= self.weights[kind];
            kind += 1;
        }
        self.of_kind(KINDS[kind].0)
    }

    fn of_kind(&mut self, kind: Kind) -> Fault {
        let rng = &mut self.rng;
        let servers: Vec<Place> = METADS.into_iter().chain(STORAGEDS).collect();
        let place = *rng.pick(&servers).expect("there are servers");
        let storaged = *rng.pick(&STORAGEDS).expect("there are storage nodes");
        let metad = *rng.pick(&METADS).expect("there are metads");
        let back_after = Duration::from_millis(rng.within(100..9_000));
        match kind {
            Kind::Isolate if self.cuts_ways => {
                let others: Vec<Place> =
                    STORAGEDS.into_iter().filter(|other| *other != storaged).collect();
                let other = *rng.pick(&others).expect("there are others");
                Fault::Cut { between: (storaged, other) }
            }
            Kind::Crash => Fault::Crash { places: vec![place], back_after },
            Kind::Isolate => Fault::Isolate { place, from_metads: rng.chance(40) },
            Kind::Pause => {
                let until_after = Duration::from_millis(rng.within(200..6_000));
                Fault::Pause { place, until_after }
            }
            Kind::Heal => Fault::Heal,
            Kind::WipeStorage => {
                Fault::Wipe { place: storaged, only_one: rng.chance(50), back_after }
            }
            Kind::WipeMetad => Fault::Wipe { place: metad, only_one: false, back_after },
            Kind::PowerCut => {
                // Of all storage, of all metads, or of both.
                let places = match rng.within(0..3) {
                    0 => STORAGEDS.to_vec(),
                    1 => METADS.to_vec(),
                    _ => servers,
                };
                Fault::Crash { places, back_after }
            }
            Kind::Damage => Fault::Damage { place: storaged, damage: Damage::any(rng) },
            Kind::Membership => Fault::Membership,
            Kind::Clock => Fault::Clock,
        }
    }

    pub(crate) fn pause(&mut self) -> Duration {
        Duration::from_millis(self.rng.within(self.pause_ms / 4..self.pause_ms * 2))
    }

    /// For what a fault draws besides.
    pub(crate) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }
}
