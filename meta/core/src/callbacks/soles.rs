//! Tests of sole callbacks: single rules, and then sessions at random against what they are for: whoever is
//! answered of an inode is answered of all that any session's programs were told.

use super::*;
use crate::namespace::Shown;

const LIMITS: CallbackLimits =
    CallbackLimits { lease_ms: 1_000, held_max: 10, owed_max: 8, contended_ms: 50 };
const DIR: u64 = 5;
const NOWHERE: u64 = u64::MAX;

fn enrolled(sessions: &[u64]) -> Callbacks {
    tests::enrolled_within(LIMITS, sessions)
}

/// The answer to a change of an inode (or, not `changed`, to a question) shows it. Whether its callback is
/// sole, if there is one.
fn answered(
    callbacks: &mut Callbacks,
    now: Millis,
    session: u64,
    inode: u64,
    changed: bool,
) -> Option<bool> {
    shown(callbacks, now, session, (NOWHERE, inode), changed)
}

/// The answer to a question shows an inode in a folder.
fn found(
    callbacks: &mut Callbacks,
    now: Millis,
    session: u64,
    folder: u64,
    inode: u64,
) -> Option<bool> {
    shown(callbacks, now, session, (folder, inode), false)
}

fn shown(
    callbacks: &mut Callbacks,
    now: Millis,
    session: u64,
    (within, inode): (u64, u64),
    changed: bool,
) -> Option<bool> {
    let since = callbacks.position();
    let shown = [Shown { inode, version: 1, is_folder: false, anew: true, within }];
    let promised = callbacks.promise_shown(now, session, since, &shown, changed);
    promised.first().map(|callback| callback.sole)
}

#[test]
fn who_changes_what_nobody_else_caches_is_alone_with_it() {
    let mut callbacks = enrolled(&[1, 2]);
    assert_eq!(answered(&mut callbacks, 0, 1, DIR, false), Some(false), "who only looks is not");
    assert_eq!(answered(&mut callbacks, 0, 1, DIR, true), Some(true));
    assert_eq!(answered(&mut callbacks, 0, 2, DIR, false), None, "before it looked");
    let mut callbacks = enrolled(&[1, 2]);
    assert_eq!(answered(&mut callbacks, 0, 2, DIR, false), Some(false));
    assert_eq!(answered(&mut callbacks, 0, 1, DIR, true), Some(false), "another caches it");
}

#[test]
fn who_is_alone_with_a_folder_is_alone_with_what_it_finds_there() {
    let mut callbacks = enrolled(&[1, 2]);
    assert_eq!(found(&mut callbacks, 0, 1, DIR, 6), Some(false), "it has changed nothing");
    assert_eq!(answered(&mut callbacks, 0, 1, DIR, true), Some(true));
    assert_eq!(found(&mut callbacks, 0, 1, DIR, 6), Some(true));
    assert_eq!(found(&mut callbacks, 0, 1, DIR + 9, 7), Some(false), "in another folder");
    assert_eq!(found(&mut callbacks, 0, 2, NOWHERE, 8), Some(false));
    assert_eq!(found(&mut callbacks, 0, 1, DIR, 8), Some(false), "another caches it");
    let look = callbacks.look(0, 2, &[6]).expect("it may have changed it");
    callbacks.end(look);
    assert_eq!(found(&mut callbacks, 0, 1, DIR, 6), None, "for a while nobody is");
}

#[test]
fn a_look_waits_until_the_session_has_told() {
    let mut callbacks = enrolled(&[1, 2]);
    assert_eq!(answered(&mut callbacks, 0, 1, DIR, true), Some(true));
    assert!(callbacks.look(0, 1, &[DIR]).is_none(), "its own");
    assert!(callbacks.look(0, 2, &[DIR + 1]).is_none());
    let look = callbacks.look(0, 2, &[DIR, DIR + 1]).unwrap();
    assert_eq!(callbacks.waits_for(&look).collect::<Vec<_>>(), [1]);
    let second = callbacks.look(5, 3, &[DIR]).expect("it has not told yet");
    // What it knows comes meanwhile, and waits for nobody.
    let told = callbacks.begin_behind(10, 1, vec![DIR]);
    assert!(callbacks.is_clear(10, &told) && !callbacks.is_clear(10, &look));
    callbacks.end(told);
    let last = callbacks.owed_to(1, 10).last;
    callbacks.renew(20, 1, 1, last).unwrap();
    assert!(callbacks.is_clear(20, &look) && callbacks.is_clear(20, &second));
    callbacks.end(look);
    callbacks.end(second);
    assert!(callbacks.look(20, 2, &[DIR]).is_none());
    assert_eq!(answered(&mut callbacks, 20, 1, DIR, true), None, "for a while nobody is");
    assert_eq!(answered(&mut callbacks, 50, 1, DIR, true), Some(true));
    assert_eq!(callbacks.counts().looks, 1);
}

#[test]
fn who_is_silent_is_waited_for_until_its_lease_ends() {
    let mut callbacks = enrolled(&[1, 2]);
    assert_eq!(answered(&mut callbacks, 0, 1, DIR, true), Some(true));
    let look = callbacks.look(10, 2, &[DIR]).unwrap();
    assert_eq!(callbacks.clear_at(&look), Some(1_000));
    assert!(callbacks.is_clear(1_000, &look));
    callbacks.end(look);
}

#[test]
fn a_new_leader_answers_nobody_until_all_have_told_and_lets_them() {
    let mut callbacks = Callbacks::new(LIMITS, 0, [1, 2]);
    callbacks.enroll(0, 3, 1).unwrap();
    let look = callbacks.look(0, 3, &[DIR]).unwrap();
    let told = callbacks.begin_behind(0, 1, vec![DIR]);
    assert!(callbacks.is_clear(0, &told), "by the promise of an earlier leader");
    callbacks.end(told);
    callbacks.enroll(0, 1, 1).unwrap();
    let told = callbacks.begin_behind(0, 1, vec![DIR]);
    assert!(!callbacks.is_clear(0, &told), "that was before it enrolled");
    callbacks.end(told);
    assert!(!callbacks.is_clear(0, &look));
    callbacks.leave(2);
    assert!(callbacks.is_clear(0, &look));
    callbacks.end(look);
}

/// What a mount was promised and told its programs. All of it counts until its lease ends.
#[derive(Default)]
struct Mount {
    soles: BTreeSet<u64>,
    /// Changes that its programs were told of and the namespace was not.
    ahead: BTreeMap<u64, u64>,
    lease_until: Millis,
    enrollment: u64,
}

struct World {
    random: u64,
    now: Millis,
    callbacks: Callbacks,
    versions: BTreeMap<u64, u64>,
    mounts: Vec<Mount>,
    looks: Vec<(u64, Change)>,
    seen: u64,
    ahead: u64,
    found: u64,
}

impl World {
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    fn step(&mut self) {
        let at = self.below(self.mounts.len() as u64) as usize;
        let inode = self.below(4);
        let lives = self.now < self.mounts[at].lease_until;
        match self.below(8) {
            0 => self.now += self.below(8),
            1 if lives => self.change(at, inode),
            2 | 3 if lives && self.mounts[at].soles.contains(&inode) => {
                *self.mounts[at].ahead.entry(inode).or_default() += 1;
                self.ahead += 1;
            }
            4 => self.tell(at, inode),
            5 => self.speak(at),
            _ => self.look(at, inode),
        }
    }

    fn session(at: usize) -> u64 {
        at as u64 + 1
    }

    fn change(&mut self, at: usize, inode: u64) {
        let change = self.callbacks.begin(self.now, Self::session(at), vec![inode]);
        let clear = self.callbacks.is_clear(self.now, &change);
        if clear {
            self.tell(at, inode);
            *self.versions.get_mut(&inode).unwrap() += 1;
        }
        self.callbacks.end(change);
        let sole = answered(&mut self.callbacks, self.now, Self::session(at), inode, true);
        if clear && sole == Some(true) {
            self.mounts[at].soles.insert(inode);
        }
    }

    /// What goes behind waits for nobody, as nobody else holds anything of it.
    fn tell(&mut self, at: usize, inode: u64) {
        let Some(ahead) = self.mounts[at].ahead.remove(&inode) else { return };
        let change = self.callbacks.begin_behind(self.now, Self::session(at), vec![inode]);
        let lives = self.now < self.mounts[at].lease_until;
        assert!(!lives || self.callbacks.is_clear(self.now, &change));
        *self.versions.get_mut(&inode).unwrap() += ahead;
        self.callbacks.end(change);
    }

    /// Hears what it is owed, handles it and asks again.
    fn speak(&mut self, at: usize) {
        let session = Self::session(at);
        if self.now >= self.mounts[at].lease_until {
            // What it was ahead is with the namespace late, and others may have looked.
            let mount = &mut self.mounts[at];
            mount.soles.clear();
            mount.ahead.clear();
            mount.enrollment += 1;
            self.callbacks.enroll(self.now, session, mount.enrollment).unwrap();
            mount.lease_until = self.now + LIMITS.lease_ms;
            return;
        }
        let batch = self.callbacks.owed_to(session, 100);
        for inode in batch.inodes {
            self.mounts[at].soles.remove(&inode);
            self.tell(at, inode);
        }
        let enrollment = self.mounts[at].enrollment;
        if self.callbacks.renew(self.now, session, enrollment, batch.last).is_ok() {
            self.mounts[at].lease_until = self.now + LIMITS.lease_ms;
        }
    }

    fn look(&mut self, at: usize, inode: u64) {
        let (now, session) = (self.now, Self::session(at));
        let is_over = |(_, look): &mut (u64, Change)| self.callbacks.is_clear(now, look);
        for (_, look) in self.looks.extract_if(.., is_over).collect::<Vec<_>>() {
            self.callbacks.end(look);
        }
        if let Some(look) = self.callbacks.look(now, session, &[inode]) {
            self.looks.push((session, look));
            return;
        }
        self.seen += 1;
        let others = self.mounts.iter().enumerate().filter(|(other, _)| *other != at);
        for (other, mount) in others.filter(|(_, mount)| now < mount.lease_until) {
            assert_eq!(mount.ahead.get(&inode), None, "mount {other} knows more of {inode}");
        }
        // All others lie in the first one.
        let is_alone = self.mounts[at].soles.contains(&0);
        if is_alone && found(&mut self.callbacks, now, session, 0, inode) == Some(true) {
            self.found += u64::from(self.mounts[at].soles.insert(inode));
        }
    }
}

#[test]
fn nobody_is_answered_less_than_others_were_told() {
    let (mut seen, mut ahead, mut found) = (0, 0, 0);
    for seed in 1_u64..200 {
        let mut world = World {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now: 0,
            callbacks: Callbacks::new(LIMITS, 0, []),
            versions: (0..4).map(|inode| (inode, 0)).collect(),
            mounts: (0..3).map(|_| Mount::default()).collect(),
            looks: Vec::new(),
            seen: 0,
            ahead: 0,
            found: 0,
        };
        for _ in 0..2_000 {
            world.step();
        }
        seen += world.seen;
        ahead += world.ahead;
        found += world.found;
    }
    assert!(seen > 10_000 && ahead > 5_000, "{seen} looks, {ahead} changes ahead");
    assert!(found > 500, "{found} that were alone with what they found");
}
