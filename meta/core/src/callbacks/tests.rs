//! Single rules, and then many sessions at random against what the rules are for: no cached version is
//! ever another than the true one.

use super::*;

const LIMITS: CallbackLimits =
    CallbackLimits { lease_ms: 1_000, held_max: 3, owed_max: 8, contended_ms: 0 };
const DIR: u64 = 5;

/// One volume in which these sessions are enrolled.
fn enrolled(sessions: &[u64]) -> Callbacks {
    enrolled_within(LIMITS, sessions)
}

pub(super) fn enrolled_within(limits: CallbackLimits, sessions: &[u64]) -> Callbacks {
    let mut callbacks = Callbacks::new(limits, 0, []);
    for &session in sessions {
        callbacks.enroll(0, session, 1).unwrap();
    }
    callbacks
}

fn promise(callbacks: &mut Callbacks, now: Millis, session: u64, inode: u64) -> bool {
    let since = callbacks.position();
    callbacks.promise(now, session, (inode, false), since)
}

#[test]
fn a_change_waits_until_each_holder_has_dropped_it() {
    let mut callbacks = enrolled(&[1, 2, 3]);
    assert!(promise(&mut callbacks, 10, 1, DIR) && promise(&mut callbacks, 10, 2, DIR));
    let change = callbacks.begin(20, 3, vec![DIR]);
    assert!(!callbacks.is_clear(20, &change));
    assert_eq!(callbacks.waits_for(&change).collect::<Vec<_>>(), [1, 2]);
    let batch = callbacks.owed_to(1, 10);
    assert_eq!((batch.inodes, batch.more), (vec![DIR], false));
    callbacks.renew(30, 1, 1, batch.last).unwrap();
    assert!(!callbacks.is_clear(30, &change), "2 has not answered");
    let last = callbacks.owed_to(2, 10).last;
    callbacks.renew(40, 2, 1, last).unwrap();
    assert!(callbacks.is_clear(40, &change));
    assert!(!promise(&mut callbacks, 40, 1, DIR), "it is changing");
    callbacks.end(change);
    assert!(promise(&mut callbacks, 40, 1, DIR));
    assert_eq!(callbacks.counts().invalidations, 2);
}

#[test]
fn a_session_never_waits_for_itself_and_one_alone_waits_for_nobody() {
    let mut callbacks = enrolled(&[1, 2]);
    assert!(promise(&mut callbacks, 0, 1, DIR));
    let own = callbacks.begin(0, 1, vec![DIR]);
    assert!(callbacks.is_clear(0, &own));
    callbacks.end(own);
    assert!(callbacks.holds(1, DIR), "it knows what it did");
    let other = callbacks.begin(0, 2, vec![DIR]);
    // While it is owed the invalidation of another's change, it may change the same itself.
    let own = callbacks.begin(0, 1, vec![DIR]);
    assert!(callbacks.is_clear(0, &own) && !callbacks.is_clear(0, &other));
}

#[test]
fn who_is_silent_is_waited_for_until_its_lease_ends() {
    let mut callbacks = enrolled(&[1, 2]);
    callbacks.renew(500, 1, 1, 0).unwrap();
    assert!(promise(&mut callbacks, 600, 1, DIR));
    let change = callbacks.begin(700, 2, vec![DIR]);
    assert_eq!(callbacks.clear_at(&change), Some(1_500));
    // It speaks, but has handled nothing: its lease does not go on by that.
    callbacks.renew(1_400, 1, 1, 0).unwrap();
    assert!(!callbacks.is_clear(1_499, &change));
    assert!(callbacks.is_clear(1_500, &change));
    assert_eq!(callbacks.renew(1_500, 1, 1, 0), Err(NotEnrolled));
    callbacks.end(change);
}

#[test]
fn a_second_try_waits_for_the_invalidations_of_the_first() {
    let mut callbacks = enrolled(&[1, 2]);
    assert!(promise(&mut callbacks, 0, 1, DIR));
    let first = callbacks.begin(0, 2, vec![DIR]);
    callbacks.end(first);
    let second = callbacks.begin(0, 2, vec![DIR]);
    assert!(!callbacks.is_clear(0, &second));
    let last = callbacks.owed_to(1, 10).last;
    callbacks.renew(1, 1, 1, last).unwrap();
    assert!(callbacks.is_clear(1, &second));
    callbacks.end(second);
}

#[test]
fn an_answer_that_was_overtaken_by_a_change_gets_no_callback() {
    let mut callbacks = enrolled(&[1, 2]);
    let since = callbacks.position();
    let change = callbacks.begin(0, 2, vec![DIR]);
    callbacks.end(change);
    assert!(
        !callbacks.promise(0, 1, (DIR, true), since),
        "read before the change, or after: who knows"
    );
    assert!(callbacks.promise(0, 2, (DIR, true), since), "who changed it knows");
    assert!(promise(&mut callbacks, 0, 1, DIR));
}

#[test]
fn a_new_leader_waits_for_the_sessions_of_its_predecessor() {
    let mut callbacks = Callbacks::new(LIMITS, 100, [1, 2]);
    let change = callbacks.begin(100, 3, vec![DIR]);
    callbacks.enroll(150, 1, 1).unwrap();
    assert!(!callbacks.is_clear(150, &change));
    assert_eq!(callbacks.clear_at(&change), Some(1_100));
    callbacks.leave(2);
    assert!(callbacks.is_clear(150, &change));
    callbacks.end(change);
    let mut callbacks = Callbacks::new(LIMITS, 100, [1]);
    let change = callbacks.begin(100, 3, vec![DIR]);
    assert!(!callbacks.is_clear(1_099, &change) && callbacks.is_clear(1_100, &change));
    callbacks.end(change);
}

#[test]
fn the_oldest_callback_makes_room_and_is_told() {
    let mut callbacks = enrolled(&[1]);
    for inode in [11, 12, 13] {
        assert!(promise(&mut callbacks, 0, 1, inode));
    }
    assert!(promise(&mut callbacks, 0, 1, 11), "again: it is the newest now");
    assert!(promise(&mut callbacks, 0, 1, 14));
    assert_eq!(callbacks.owed_to(1, 10).inodes, [12]);
    assert_eq!((callbacks.held_by(1), callbacks.counts().evictions), (3, 1));
    for inode in 15..40 {
        promise(&mut callbacks, 0, 1, inode);
    }
    assert_eq!(callbacks.owed_to(1, 100).inodes.len(), LIMITS.owed_max, "and then none is made");
}

#[test]
fn folders_make_room_only_where_there_are_no_files() {
    let mut callbacks = enrolled(&[1]);
    for (inode, is_folder) in [(DIR, true), (6, true), (11, false), (12, false), (13, false)] {
        assert!(callbacks.promise(0, 1, (inode, is_folder), callbacks.position()));
    }
    assert_eq!(callbacks.owed_to(1, 10).inodes, [11, 12]);
    for inode in [7, 8] {
        assert!(callbacks.promise(0, 1, (inode, true), callbacks.position()));
    }
    assert_eq!(callbacks.owed_to(1, 10).inodes, [11, 12, 13, DIR]);
}

#[test]
fn what_two_change_in_turns_is_not_cached_for_a_while() {
    let limits = CallbackLimits { contended_ms: 50, ..LIMITS };
    let mut callbacks = Callbacks::new(limits, 0, []);
    callbacks.enroll(0, 1, 1).unwrap();
    assert!(promise(&mut callbacks, 0, 1, DIR));
    let change = callbacks.begin(0, 2, vec![DIR]);
    callbacks.end(change);
    assert!(!promise(&mut callbacks, 49, 1, DIR));
    assert!(promise(&mut callbacks, 50, 1, DIR));
}

#[test]
fn an_enrolment_that_comes_late_begins_nothing() {
    let mut callbacks = enrolled(&[1, 2]);
    assert!(promise(&mut callbacks, 0, 1, DIR));
    callbacks.enroll(10, 1, 1).unwrap();
    assert!(callbacks.holds(1, DIR), "a second copy of the message");
    callbacks.enroll(20, 1, 2).unwrap();
    assert!(!callbacks.holds(1, DIR));
    assert_eq!(callbacks.enroll(30, 1, 1), Err(NotEnrolled));
    assert_eq!(callbacks.renew(30, 1, 1, 0), Err(NotEnrolled));
    // Its lease ends: what it holds is gone, and only a new beginning helps.
    assert_eq!(callbacks.enroll(2_000, 1, 2), Err(NotEnrolled));
    callbacks.enroll(2_000, 1, 3).unwrap();
}

/// A client that follows the rules: what it caches, until when, and the questions on their way.
#[derive(Default)]
struct Mount {
    cached: BTreeMap<u64, u64>,
    lease_until: Millis,
    enrolled: bool,
    enrollment: u64,
    handled: u64,
    /// An answer that was not handled yet, and when its question was sent.
    batch: Option<(Millis, Batch)>,
    /// Answers on their way: inode, version, whether it came with a callback.
    answers: Vec<(u64, u64, bool)>,
    /// Inodes that were invalidated while answers were on their way.
    dropped: BTreeSet<u64>,
}

impl Mount {
    /// Answers that are on their way are not to be cached.
    fn refuse_begun(&mut self, inodes: impl IntoIterator<Item = u64>) {
        if !self.answers.is_empty() {
            self.dropped.extend(inodes);
        }
    }
}

/// A change between its beginning and its end.
struct Ongoing {
    change: Change,
    inode: u64,
    by: usize,
    applied: bool,
}

struct World {
    random: u64,
    now: Millis,
    callbacks: Callbacks,
    versions: BTreeMap<u64, u64>,
    mounts: Vec<Mount>,
    ongoing: Vec<Ongoing>,
    /// Enrolments that may come once more.
    late: Vec<(u64, u64)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let limits = CallbackLimits { lease_ms: 200, held_max: 4, owed_max: 4, contended_ms: 5 };
        Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now: 0,
            callbacks: Callbacks::new(limits, 0, []),
            versions: (0..5).map(|inode| (inode, 0)).collect(),
            mounts: (0..3).map(|_| Mount::default()).collect(),
            ongoing: Vec::new(),
            late: Vec::new(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    fn step(&mut self) {
        let at = self.below(self.mounts.len() as u64) as usize;
        match self.below(13) {
            0..=2 => self.read(at),
            3..=4 => self.take_answer(at),
            5..=6 => self.ask(at),
            7 => self.handle(at),
            8 => self.begin(at),
            9..=10 => self.go_on(),
            11 if !self.late.is_empty() => {
                let place = self.below(self.late.len() as u64) as usize;
                let (session, enrollment) = self.late[place];
                let _ = self.callbacks.enroll(self.now, session, enrollment);
            }
            _ => self.now += self.below(20),
        }
        self.check();
    }

    /// The leader answers; the client hears of it later.
    fn read(&mut self, at: usize) {
        let inode = self.below(self.versions.len() as u64);
        let since = self.callbacks.position();
        let version = self.versions[&inode];
        // On its way from now on, as far as what the mount itself changes meanwhile is concerned.
        self.mounts[at].answers.push((inode, version, false));
        // A change may begin between the look and the promise, or even end.
        if self.below(3) == 0 {
            self.begin((at + 1) % 3);
            (0..self.below(8)).for_each(|_| self.go_on());
        }
        let promised = self.callbacks.promise(self.now, at as u64 + 1, (inode, false), since);
        let answer = self.mounts[at].answers.last_mut().unwrap();
        answer.2 = promised;
    }

    fn take_answer(&mut self, at: usize) {
        let mount = &mut self.mounts[at];
        if mount.answers.is_empty() {
            return;
        }
        let (inode, version, promised) = mount.answers.remove(0);
        if promised && mount.enrolled && !mount.dropped.contains(&inode) {
            mount.cached.insert(inode, version);
        }
        if mount.answers.is_empty() {
            mount.dropped.clear();
        }
    }

    /// A question for invalidations, and its answer, which may be lost.
    fn ask(&mut self, at: usize) {
        let (session, now) = (at as u64 + 1, self.now);
        if self.mounts[at].batch.is_some() {
            return;
        }
        let lost = self.below(5) == 0;
        let mount = &mut self.mounts[at];
        if !mount.enrolled {
            mount.cached.clear();
            // Answers of before are refused by their term, or by having been dropped.
            mount.refuse_begun(0..100);
            mount.enrollment += 1;
            let enrolled = self.callbacks.enroll(now, session, mount.enrollment).is_ok();
            self.late.push((session, mount.enrollment));
            mount.enrolled = enrolled && !lost;
            mount.lease_until = if lost { 0 } else { now + self.callbacks.limits.lease_ms };
            return;
        }
        match self.callbacks.renew(now, session, mount.enrollment, mount.handled) {
            Err(NotEnrolled) if !lost => {
                mount.enrolled = false;
                mount.cached.clear();
            }
            Err(NotEnrolled) => {}
            Ok(()) => {
                let batch = self.callbacks.owed_to(session, 1);
                if !lost {
                    mount.batch = Some((now, batch));
                }
            }
        }
    }

    fn handle(&mut self, at: usize) {
        let lease_ms = self.callbacks.limits.lease_ms;
        let mount = &mut self.mounts[at];
        let Some((sent, batch)) = mount.batch.take() else { return };
        for inode in batch.inodes {
            mount.cached.remove(&inode);
            mount.refuse_begun([inode]);
        }
        mount.handled = mount.handled.max(batch.last);
        if self.now >= mount.lease_until {
            // Too late: the leader may have given it up, with what it has not heard of.
            mount.enrolled = false;
            mount.cached.clear();
        } else if !batch.more {
            mount.lease_until = mount.lease_until.max(sent + lease_ms);
        }
    }

    fn begin(&mut self, by: usize) {
        let inode = self.below(self.versions.len() as u64);
        let change = self.callbacks.begin(self.now, by as u64 + 1, vec![inode]);
        self.ongoing.push(Ongoing { change, inode, by, applied: false });
    }

    fn go_on(&mut self) {
        if self.ongoing.is_empty() {
            return;
        }
        let place = self.below(self.ongoing.len() as u64) as usize;
        let ongoing = &mut self.ongoing[place];
        if ongoing.applied {
            self.callbacks.end(self.ongoing.swap_remove(place).change);
        } else if self.callbacks.is_clear(self.now, &ongoing.change) {
            ongoing.applied = true;
            *self.versions.get_mut(&ongoing.inode).unwrap() += 1;
            // Its own cache follows; answers of before the change are its own kernel's business.
            let mount = &mut self.mounts[ongoing.by];
            mount.cached.remove(&ongoing.inode);
            mount.refuse_begun([ongoing.inode]);
        }
    }

    fn check(&self) {
        let held: u64 = (1..=3).map(|session| self.callbacks.held_by(session)).sum();
        assert_eq!(self.callbacks.counts().held, held);
        for (number, mount) in self.mounts.iter().enumerate() {
            if self.now >= mount.lease_until {
                continue;
            }
            for (inode, version) in &mount.cached {
                assert_eq!(self.versions[inode], *version, "mount {number}, inode {inode}");
            }
        }
    }
}

#[test]
fn nothing_that_is_cached_is_ever_out_of_date() {
    let mut cached = 0;
    for seed in 1..200 {
        let mut world = World::new(seed);
        for _ in 0..2_000 {
            world.step();
            cached += world.mounts.iter().map(|mount| mount.cached.len()).sum::<usize>();
        }
    }
    assert!(cached > 20_000, "something was cached at all: {cached}");
}
