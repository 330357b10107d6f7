//! Locks of one file, in some seeds: what is asked for, and whether two ever held what excludes each other.

use std::time::Duration;

use ff2_proto::pb;

use crate::rng::Rng;

/// A session that says nothing for so long is over, on the leader's clock.
pub(crate) const PERIOD: Duration = Duration::from_secs(8);
/// So long it is not, in true time, since it last spoke: metads' clocks are up to a tenth fast (see `clock`).
pub(crate) const SURE: Duration = Duration::from_millis(7_200);
/// Ranges lie within so many bytes: few, so that they meet.
const BYTES: u64 = 6;

/// A lock that a client had.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) session: u64,
    pub(crate) lock: pb::Lock,
    pub(crate) from: Duration,
    /// `None`: it never let go of it.
    pub(crate) until: Option<Duration>,
    /// It did not free it: its session went.
    pub(crate) with_session: bool,
}

impl Held {
    fn excludes(&self, other: &Self) -> bool {
        let (one, other) = (&self.lock, &other.lock);
        one.flock == other.flock
            && one.start <= other.end
            && other.start <= one.end
            && (one.exclusive || other.exclusive)
    }

    fn is_over_by(&self, at: Duration) -> bool {
        self.until.is_some_and(|until| until <= at)
    }
}

/// Of a file or of a range, shared or not.
pub(crate) fn any(rng: &mut Rng, ticket: u64) -> pb::Lock {
    let start = rng.within(0..BYTES);
    let end = rng.within(start..BYTES);
    let (flock, exclusive) = (rng.chance(30), rng.chance(60));
    let (start, end) = if flock { (0, u64::MAX) } else { (start, end) };
    pb::Lock { owner: 1, flock, exclusive, start, end, ticket, ..Default::default() }
}

/// All ranges, for oneself.
pub(crate) fn whole(ticket: u64) -> pb::Lock {
    pb::Lock { owner: 1, exclusive: true, end: u64::MAX, ticket, ..Default::default() }
}

/// Two of different sessions that were held at one time and exclude each other.
pub(crate) fn conflict<'a>(all: &[&'a Held]) -> Option<(&'a Held, &'a Held)> {
    pairs(all).find(|(one, other)| !one.is_over_by(other.from) && !other.is_over_by(one.from))
}

/// Whether somebody got what a session that ended had held.
pub(crate) fn is_passed_on(all: &[&Held]) -> bool {
    pairs(all).any(|(one, other)| one.with_session && one.is_over_by(other.from))
}

/// All that exclude each other, in both orders.
fn pairs<'a>(all: &[&'a Held]) -> impl Iterator<Item = (&'a Held, &'a Held)> {
    let with = move |one: &'a Held| {
        let others = all.iter().copied().filter(|other| other.session != one.session);
        others.filter(move |other| one.excludes(other)).map(move |other| (one, other))
    };
    all.iter().copied().flat_map(with)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(session: u64, exclusive: bool, bytes: (u64, u64), time: (u64, u64)) -> Held {
        let (start, end) = bytes;
        let lock = pb::Lock { exclusive, start, end, ..Default::default() };
        let [from, until] = [time.0, time.1].map(Duration::from_secs);
        Held { session, lock, from, until: Some(until), with_session: false }
    }

    #[test]
    fn what_excludes_each_other_is_held_one_after_the_other() {
        let one = held(1, true, (0, 3), (1, 5));
        let meets = |other: &Held| conflict(&[&one, other]).is_some();
        assert!(meets(&held(2, false, (3, 4), (4, 6))));
        assert!(meets(&Held { until: None, ..held(2, true, (0, 0), (0, 0)) }), "for ever");
        assert!(!meets(&held(2, true, (0, 3), (5, 6))), "after it");
        assert!(!meets(&held(2, true, (4, 5), (2, 3))), "beside it");
        assert!(!meets(&held(1, true, (0, 3), (2, 3))), "its own");
        let shared = [held(1, false, (0, 3), (1, 5)), held(2, false, (0, 3), (2, 3))];
        assert!(conflict(&[&shared[0], &shared[1]]).is_none());
    }
}
