//! What the namespace said is left in quotas, and how much of it changes need that it does not know yet
//! (docs/design/0008).
//!
//! A change that would need the last of a quota is not foreseen: others may use it up. What is foreseen
//! and not answered is bounded for each place, so no client goes beyond a limit by more than that, however
//! late it hears of it.

use std::collections::BTreeMap;

use ff2_proto::{limits::INLINE_BYTES_MAX, pb};

use crate::limits;

/// Inodes that the same quotas count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The nearest folder with a quota; 0: none.
    pub folder: u64,
    pub uid: u32,
    pub gid: u32,
}

impl Place {
    pub fn of(attr: &pb::Attr) -> Self {
        Self { folder: attr.quota, uid: attr.uid, gid: attr.gid }
    }
}

/// What a change takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    pub inodes: u64,
    pub bytes: u64,
}

/// Whether a change may be foreseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    /// When some of those before it are answered.
    Soon,
    No,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Endless,
    Room(pb::QuotaRoom),
}

#[derive(Clone, Copy, Debug)]
struct Known {
    left: Left,
    /// Foreseen, and not answered.
    pending: Need,
    changes: u64,
}

#[derive(Debug, Default)]
pub struct Rooms {
    known: BTreeMap<Place, Known>,
}

impl Rooms {
    pub fn verdict(&self, place: Place, need: Need) -> Verdict {
        if need == Need::default() {
            return Verdict::Yes;
        }
        // The namespace is asked once of each place: though no folder has a quota, the owner may have one.
        let Some(known) = self.known.get(&place) else { return Verdict::No };
        let room = match known.left {
            Left::Endless => return Verdict::Yes,
            Left::Room(room) => room,
        };
        let fits = |left: Option<u64>, pending: u64, need: u64, margin: u64| {
            left.is_none_or(|left| pending.saturating_add(need).saturating_add(margin) <= left)
        };
        let has_room = fits(room.inodes, known.pending.inodes, need.inodes, MARGIN.inodes)
            && fits(room.bytes, known.pending.bytes, need.bytes, MARGIN.bytes);
        if !has_room || need.bytes > u64::from(INLINE_BYTES_MAX) {
            Verdict::No
        } else if known.changes >= limits::FORESEEN_IN_QUOTA_MAX {
            Verdict::Soon
        } else {
            Verdict::Yes
        }
    }

    /// A change is foreseen.
    pub fn foreseen(&mut self, place: Place, need: Need) {
        if need == Need::default() {
            return;
        }
        let known = self.known.get_mut(&place).expect("what is foreseen has a place that is known");
        known.pending.inodes += need.inodes;
        known.pending.bytes = known.pending.bytes.saturating_add(need.bytes);
        known.changes += 1;
    }

    /// ... and was answered, or came to nothing.
    pub fn answered(&mut self, place: Place, need: Need) {
        if need == Need::default() {
            return;
        }
        if let Some(known) = self.known.get_mut(&place) {
            known.pending.inodes = known.pending.inodes.saturating_sub(need.inodes);
            known.pending.bytes = known.pending.bytes.saturating_sub(need.bytes);
            known.changes = known.changes.saturating_sub(1);
        }
    }

    /// The namespace said what is left, after all changes of this client that it answered. `None`: there is no
    /// limit.
    pub fn learn(&mut self, place: Place, room: Option<pb::QuotaRoom>) {
        self.make_room();
        let left = room.map_or(Left::Endless, Left::Room);
        let known = Known { left, pending: Need::default(), changes: 0 };
        self.known.entry(place).and_modify(|known| known.left = left).or_insert(known);
    }

    /// What a file of this place may be foreseen to grow by, before anybody is asked; `None`: there is no limit.
    pub fn of_new(&self, place: Place) -> Option<pb::QuotaRoom> {
        match self.known.get(&place).map(|known| known.left) {
            Some(Left::Endless) => None,
            Some(Left::Room(pb::QuotaRoom { bytes: None, .. })) => None,
            Some(Left::Room(_)) | None => {
                Some(pb::QuotaRoom { inodes: None, bytes: Some(INLINE_BYTES_MAX.into()) })
            }
        }
    }

    /// What is not pending can be asked again.
    fn make_room(&mut self) {
        if self.known.len() >= limits::ROOMS_MAX {
            self.known.retain(|_, known| known.changes > 0);
        }
    }
}

/// What others may take meanwhile.
const MARGIN: Need = Need {
    inodes: limits::FORESEEN_IN_QUOTA_MAX,
    bytes: limits::FORESEEN_IN_QUOTA_MAX * INLINE_BYTES_MAX as u64,
};

/// How far a file may grow before the namespace is asked again, if so many bytes are left in its quotas: less
/// near a limit, which others may reach meanwhile.
pub fn window(left: u64) -> u64 {
    left.min((left / 8).clamp(limits::QUOTA_WINDOW_MIN, limits::QUOTA_WINDOW_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_FOLDER: Place = Place { folder: 7, uid: 1, gid: 1 };
    const ONE: Need = Need { inodes: 1, bytes: 0 };

    fn room(inodes: u64) -> Option<pb::QuotaRoom> {
        Some(pb::QuotaRoom { inodes: Some(inodes), bytes: None })
    }

    #[test]
    fn nothing_is_foreseen_before_the_room_is_known() {
        let mut rooms = Rooms::default();
        assert_eq!(rooms.verdict(IN_FOLDER, ONE), Verdict::No);
        assert_eq!(rooms.verdict(Place { folder: 0, ..IN_FOLDER }, ONE), Verdict::No);
        rooms.learn(IN_FOLDER, None);
        assert_eq!(rooms.verdict(IN_FOLDER, ONE), Verdict::Yes);
        rooms.learn(IN_FOLDER, room(1));
        assert_eq!(rooms.verdict(IN_FOLDER, ONE), Verdict::No, "the last one is asked for");
        assert_eq!(rooms.verdict(IN_FOLDER, Need::default()), Verdict::Yes);
    }

    #[test]
    fn alone_a_client_foresees_no_more_than_is_left() {
        for left in 0..2 * MARGIN.inodes {
            let mut rooms = Rooms::default();
            rooms.learn(IN_FOLDER, room(left));
            let mut made = 0;
            while rooms.verdict(IN_FOLDER, ONE) == Verdict::Yes {
                rooms.foreseen(IN_FOLDER, ONE);
                made += 1;
            }
            assert!(made <= left.saturating_sub(MARGIN.inodes), "{made} of {left}");
        }
    }

    #[test]
    fn what_is_foreseen_and_not_answered_is_bounded() {
        for folder in [7, 0] {
            let place = Place { folder, ..IN_FOLDER };
            let mut rooms = Rooms::default();
            rooms.learn(place, room(1_000_000));
            let mut made = 0;
            while rooms.verdict(place, ONE) == Verdict::Yes {
                rooms.foreseen(place, ONE);
                made += 1;
            }
            assert_eq!(made, limits::FORESEEN_IN_QUOTA_MAX);
            assert_eq!(rooms.verdict(place, ONE), Verdict::Soon);
            rooms.answered(place, ONE);
            assert_eq!(rooms.verdict(place, ONE), Verdict::Yes);
        }
    }

    #[test]
    fn bytes_are_bounded_as_inodes_are() {
        let mut rooms = Rooms::default();
        let small = Need { inodes: 0, bytes: 8_000 };
        rooms.learn(IN_FOLDER, Some(pb::QuotaRoom { inodes: None, bytes: Some(MARGIN.bytes) }));
        assert_eq!(rooms.verdict(IN_FOLDER, small), Verdict::No);
        assert_eq!(rooms.of_new(IN_FOLDER).unwrap().bytes, Some(8_192));
        let bytes = Some(MARGIN.bytes + 8_000);
        rooms.learn(IN_FOLDER, Some(pb::QuotaRoom { inodes: None, bytes }));
        assert_eq!(rooms.verdict(IN_FOLDER, small), Verdict::Yes);
        let large = Need { inodes: 0, bytes: 1 << 20 };
        assert_eq!(rooms.verdict(IN_FOLDER, large), Verdict::No, "whatever is left");
        rooms.learn(IN_FOLDER, None);
        assert_eq!(
            (rooms.verdict(IN_FOLDER, large), rooms.of_new(IN_FOLDER)),
            (Verdict::Yes, None)
        );
    }

    #[test]
    fn what_is_remembered_is_bounded_and_nothing_pending_is_forgotten() {
        let mut rooms = Rooms::default();
        rooms.learn(IN_FOLDER, room(1_000));
        rooms.foreseen(IN_FOLDER, ONE);
        for folder in 100..100 + 3 * limits::ROOMS_MAX as u64 {
            rooms.learn(Place { folder, ..IN_FOLDER }, None);
            assert!(rooms.known.len() <= limits::ROOMS_MAX);
        }
        assert!(rooms.known.contains_key(&IN_FOLDER));
    }

    #[test]
    fn windows_shrink_near_the_limit_and_never_exceed_what_is_left() {
        assert_eq!(window(0), 0);
        assert_eq!(window(1_000), 1_000);
        assert_eq!(window(16 << 20), 2 << 20);
        assert_eq!(window(u64::MAX), limits::QUOTA_WINDOW_MAX);
    }
}
