//! Which sessions are alive, and what they said of orphans: the leader's memory, pure.
//!
//! A new leader knows nothing of keepalives: every session has one full period from when it is first
//! seen here, and no orphan is collected before each session told *this* leader that it saw the
//! orphan's notice.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::{Code, Status, VolumeId, pb};

use super::{limits, request::Owner};

type Millis = u64;

/// A leader's memory of one term.
#[derive(Debug)]
pub struct SessionBook {
    period_ms: Millis,
    sessions: BTreeMap<(VolumeId, u64), Entry>,
}

#[derive(Debug)]
struct Entry {
    heard_at: Millis,
    /// The only one who may renew it.
    owner: Owner,
    /// Every notice up to this was handled; `None` before it spoke to this leader.
    seen_orphan_seq: Option<u64>,
    /// Since when it acknowledges no notice while there are some.
    withholds_since: Option<Millis>,
    /// Its end is being logged: it is not heard any more.
    is_over: bool,
    holds: BTreeSet<u64>,
}

impl SessionBook {
    /// In which a session that says nothing for `period_ms` is over.
    pub fn new(period_ms: Millis) -> Self {
        Self { period_ms, sessions: BTreeMap::new() }
    }

    pub fn knows(&self, volume: VolumeId, session: u64) -> bool {
        self.sessions.contains_key(&(volume, session))
    }

    /// All sessions on record: new ones begin their period, ended ones are forgotten.
    pub fn learn(&mut self, now: Millis, volume: VolumeId, on_record: &[pb::SessionRecord]) {
        let on_record = || on_record.iter().filter(|record| !record.ending);
        let live: BTreeSet<u64> = on_record().map(|record| record.id).collect();
        self.sessions.retain(|(of, id), _| *of != volume || live.contains(id));
        for record in on_record() {
            self.begin(now, volume, record);
        }
    }

    /// A session on record begins its period, unless it has.
    pub fn begin(&mut self, now: Millis, volume: VolumeId, record: &pb::SessionRecord) {
        self.sessions.entry((volume, record.id)).or_insert_with(|| Entry {
            heard_at: now,
            owner: record.owner,
            seen_orphan_seq: None,
            withholds_since: None,
            is_over: false,
            holds: BTreeSet::new(),
        });
    }

    /// What the owner of a session says, which renews it. SESSION_EXPIRED: it is over.
    pub fn keepalive(
        &mut self,
        now: Millis,
        volume: VolumeId,
        session: u64,
        owner: Owner,
        said: pb::KeepaliveOp,
    ) -> Result<(), Status> {
        let entry = self.sessions.get_mut(&(volume, session)).filter(|entry| !entry.is_over);
        let Some(entry) = entry else {
            return Err(Status::new(Code::SessionExpired, format!("session {session} is over")));
        };
        if entry.owner != owner {
            return Err(Status::new(Code::Forbidden, "the session belongs to another user"));
        }
        entry.heard_at = entry.heard_at.max(now);
        if entry.seen_orphan_seq < Some(said.seen_orphan_seq) {
            entry.withholds_since = None;
        }
        entry.seen_orphan_seq = Some(said.seen_orphan_seq);
        entry.holds = said.holds.into_iter().collect();
        Ok(())
    }

    /// There are notices up to `newest`.
    pub fn noticed(&mut self, now: Millis, volume: VolumeId, newest: u64) {
        for (_, entry) in self.sessions.range_mut((volume, 0)..=(volume, u64::MAX)) {
            // Ended by the next acknowledgement alone: `newest` may be that of an early page.
            if entry.seen_orphan_seq < Some(newest) {
                entry.withholds_since.get_or_insert(now);
            }
        }
    }

    /// Sessions that were silent for a whole period, and those that speak and acknowledge nothing:
    /// nothing that is removed would ever be space again.
    pub fn expired(&self, now: Millis, volume: VolumeId) -> Vec<u64> {
        let withhold_max = limits::NOTICE_WITHHOLD_MAX.as_millis() as Millis;
        let since = |then: Millis| now.saturating_sub(then);
        let over = |entry: &Entry| {
            entry.is_over
                || since(entry.heard_at) >= self.period_ms
                || entry.withholds_since.is_some_and(|then| since(then) >= withhold_max)
        };
        let of_volume = self.of(volume).filter(|(_, entry)| over(entry));
        of_volume.map(|(id, _)| id).collect()
    }

    /// The end of these is about to be logged. None of them can be renewed any more: who was told so while its
    /// end is on its way would count on locks that are somebody else's.
    pub fn end(&mut self, volume: VolumeId, sessions: &[u64]) {
        for &session in sessions {
            if let Some(entry) = self.sessions.get_mut(&(volume, session)) {
                entry.is_over = true;
            }
        }
    }

    /// Orphans that can get no name, that every session has been told of and none has open.
    pub fn collectable(&self, volume: VolumeId, orphans: Vec<pb::Orphan>) -> Vec<pb::Orphan> {
        let seen_by_all = self.seen_by_all(volume);
        let held: BTreeSet<u64> =
            self.of(volume).flat_map(|(_, entry)| entry.holds.iter().copied()).collect();
        let free = |orphan: &pb::Orphan| {
            !orphan.nameable && orphan.seq <= seen_by_all && !held.contains(&orphan.inode)
        };
        orphans.into_iter().filter(free).collect()
    }

    /// Notices up to this were handled by every session.
    pub fn seen_by_all(&self, volume: VolumeId) -> u64 {
        let seen = self.of(volume).map(|(_, entry)| entry.seen_orphan_seq.unwrap_or(0));
        // Where nobody is, nobody can have one open.
        seen.min().unwrap_or(u64::MAX)
    }

    fn of(&self, volume: VolumeId) -> impl Iterator<Item = (u64, &Entry)> {
        let all = self.sessions.range((volume, 0)..=(volume, u64::MAX));
        all.map(|((_, id), entry)| (*id, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: VolumeId = VolumeId(1);

    fn book(sessions: &[u64]) -> SessionBook {
        let mut book = SessionBook::new(30_000);
        book.learn(1_000, VOLUME, &records(sessions));
        book
    }

    fn records(sessions: &[u64]) -> Vec<pb::SessionRecord> {
        let record = |&id| pb::SessionRecord { id, owner: Some(1000), ..Default::default() };
        sessions.iter().map(record).collect()
    }

    fn says(book: &mut SessionBook, now: Millis, session: u64, seen: u64, holds: &[u64]) {
        let said = pb::KeepaliveOp { seen_orphan_seq: seen, holds: holds.to_vec() };
        book.keepalive(now, VOLUME, session, Some(1000), said).unwrap();
    }

    #[test]
    fn what_may_get_a_name_stays() {
        let mut book = book(&[1]);
        says(&mut book, 1_000, 1, 9, &[]);
        let nameable = pb::Orphan { nameable: true, ..orphan(3, 30) };
        let free = book.collectable(VOLUME, vec![nameable, orphan(4, 40)]);
        assert_eq!(free, [orphan(4, 40)]);
    }

    fn orphan(seq: u64, inode: u64) -> pb::Orphan {
        pb::Orphan { seq, inode, ..Default::default() }
    }

    fn collectable(book: &SessionBook) -> Vec<u64> {
        let orphans = vec![orphan(1, 11), orphan(2, 12), orphan(3, 13)];
        book.collectable(VOLUME, orphans).iter().map(|orphan| orphan.inode).collect()
    }

    #[test]
    fn a_silent_session_expires_after_a_full_period_under_this_leader() {
        let mut book = book(&[1, 2]);
        says(&mut book, 20_000, 1, 0, &[]);
        assert!(book.expired(30_999, VOLUME).is_empty());
        assert_eq!(book.expired(31_000, VOLUME), [2]);
        book.learn(31_000, VOLUME, &records(&[1]));
        assert!(!book.knows(VOLUME, 2));
        let late = book.keepalive(31_001, VOLUME, 2, None, pb::KeepaliveOp::default());
        assert_eq!(late.unwrap_err().code, Code::SessionExpired);
    }

    #[test]
    fn a_session_whose_end_is_being_logged_is_not_renewed() {
        let mut book = book(&[1]);
        assert_eq!(book.expired(31_000, VOLUME), [1]);
        book.end(VOLUME, &[1]);
        let late = book.keepalive(31_001, VOLUME, 1, Some(1000), pb::KeepaliveOp::default());
        assert_eq!(late.unwrap_err().code, Code::SessionExpired);
        assert_eq!(book.expired(31_002, VOLUME), [1], "until it is not on record any more");
    }

    #[test]
    fn an_orphan_waits_for_every_session_and_every_holder() {
        let mut book = book(&[1, 2]);
        says(&mut book, 2_000, 1, 3, &[12]);
        assert!(collectable(&book).is_empty(), "session 2 has not spoken to this leader");
        says(&mut book, 2_000, 2, 2, &[]);
        assert_eq!(collectable(&book), [11], "3 was not seen by all, 12 is held");
        says(&mut book, 3_000, 2, 3, &[]);
        assert_eq!(collectable(&book), [11, 13]);
        says(&mut book, 4_000, 1, 3, &[]);
        assert_eq!(collectable(&book), [11, 12, 13]);
        book.learn(5_000, VOLUME, &[]);
        assert_eq!(collectable(&book), [11, 12, 13], "nobody is there");
    }

    #[test]
    fn a_session_that_acknowledges_nothing_is_not_waited_for_for_ever() {
        let mut book = SessionBook::new(30_000);
        book.learn(0, VOLUME, &records(&[1, 2, 3]));
        let end = limits::NOTICE_WITHHOLD_MAX.as_millis() as Millis;
        for at in (0..=end + 20_000).step_by(10_000) {
            says(&mut book, at, 1, 0, &[]);
            says(&mut book, at, 2, at / 100_000, &[]);
            says(&mut book, at, 3, 1_000_000, &[]);
            book.noticed(at, VOLUME, 0);
            book.noticed(at, VOLUME, at / 10_000 + 1);
            let expected: &[u64] = if at < end { &[] } else { &[1] };
            assert_eq!(book.expired(at, VOLUME), expected, "at {at}");
        }
        says(&mut book, end + 20_000, 1, 1_000_000, &[]);
        assert!(book.expired(end + 20_000, VOLUME).is_empty(), "it caught up in time");
    }

    #[test]
    fn a_session_is_renewed_by_its_owner_only() {
        let mut book = book(&[1]);
        let other = book.keepalive(2_000, VOLUME, 1, Some(2000), pb::KeepaliveOp::default());
        assert_eq!(other.unwrap_err().code, Code::Forbidden, "though it is the first to speak");
        says(&mut book, 2_000, 1, 0, &[]);
    }

    #[test]
    fn a_session_that_ends_is_waited_for_by_nobody() {
        let mut book = book(&[1, 2]);
        says(&mut book, 2_000, 1, 3, &[]);
        let mut records = records(&[1, 2]);
        records[1].ending = true;
        book.learn(2_000, VOLUME, &records);
        assert!(!book.knows(VOLUME, 2));
        assert_eq!(collectable(&book), [11, 12, 13]);
    }
}
