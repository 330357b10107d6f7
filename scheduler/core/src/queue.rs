//! Jobs that wait, by shape and rank: those of one shape fit alike, so after one failure the rest need no try.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use crate::{
    job::{JobId, Priority, Shape},
    quota::QuotaKey,
};

/// The order in which jobs go: the smallest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) priority: Reverse<Priority>,
    pub(crate) band: u32,
    /// Jobs that lost a node go before others of their band.
    pub(crate) behind: bool,
    pub(crate) submitted_ms: u64,
    pub(crate) job: JobId,
}

#[derive(Clone, Debug)]
enum Place {
    Shape(Shape),
    /// It would go beyond a quota: not looked at before that has room.
    Parked(QuotaKey, Shape),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    by_shape: BTreeMap<Shape, BTreeSet<Rank>>,
    parked: BTreeMap<QuotaKey, BTreeSet<Rank>>,
    places: BTreeMap<JobId, (Rank, Place)>,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn push(&mut self, shape: Shape, rank: Rank) {
        self.by_shape.entry(shape).or_default().insert(rank);
        let before = self.places.insert(rank.job, (rank, Place::Shape(shape)));
        assert!(before.is_none(), "{:?} waits twice", rank.job);
    }

    pub(crate) fn remove(&mut self, job: JobId) {
        let Some((rank, place)) = self.places.remove(&job) else { return };
        match place {
            Place::Shape(shape) => take_from(&mut self.by_shape, &shape, &rank),
            Place::Parked(key, _) => take_from(&mut self.parked, &key, &rank),
        }
    }

    pub(crate) fn park(&mut self, job: JobId, key: QuotaKey) {
        let Some((rank, Place::Shape(shape))) = self.places.remove(&job) else { return };
        take_from(&mut self.by_shape, &shape, &rank);
        self.parked.entry(key.clone()).or_default().insert(rank);
        self.places.insert(job, (rank, Place::Parked(key, shape)));
    }

    /// Lets jobs that a quota held go on waiting, in their order, as long as there is room for them.
    pub(crate) fn unpark(&mut self, key: &QuotaKey, mut room: u64) -> bool {
        let mut any = false;
        while let Some(rank) = self.parked.get(key).and_then(BTreeSet::first).copied() {
            let Some((_, Place::Parked(_, shape))) = self.places.get(&rank.job) else { break };
            let (shape, gpus) = (*shape, shape.gpus());
            if gpus > room {
                break;
            }
            room -= gpus;
            self.remove(rank.job);
            self.push(shape, rank);
            any = true;
        }
        any
    }

    pub(crate) fn shapes(&self) -> impl Iterator<Item = (&Shape, &BTreeSet<Rank>)> {
        self.by_shape.iter()
    }

    pub(crate) fn first_of(&self, shape: &Shape) -> Option<Rank> {
        self.by_shape.get(shape)?.first().copied()
    }

    pub(crate) fn parked(&self) -> impl Iterator<Item = (JobId, &QuotaKey)> {
        let places = self.places.iter();
        places.filter_map(|(id, (_, place))| match place {
            Place::Parked(key, _) => Some((*id, key)),
            Place::Shape(_) => None,
        })
    }

    pub(crate) fn rank(&self, job: JobId) -> Option<Rank> {
        Some(self.places.get(&job)?.0)
    }

    pub(crate) fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.places.keys().copied()
    }

    /// Those of a shape that go after one with this rank.
    pub(crate) fn behind(&self, shape: &Shape, rank: Rank) -> impl Iterator<Item = Rank> {
        let set = self.by_shape.get(shape).into_iter();
        set.flat_map(move |set| set.range((Bound::Excluded(rank), Bound::Unbounded))).copied()
    }

    /// Jobs that go before one with this rank.
    pub(crate) fn before(&self, rank: Rank) -> u64 {
        let sets = self.by_shape.values();
        sets.map(|set| set.range(..rank).count() as u64).sum()
    }
}

fn take_from<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<Rank>>, key: &K, rank: &Rank) {
    let set = sets.get_mut(key).expect("a job lies where it is said to");
    assert!(set.remove(rank), "a job lies where it is said to");
    if set.is_empty() {
        sets.remove(key);
    }
}
