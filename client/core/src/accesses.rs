//! Which inodes this client read, until the namespace knows: their access times are told some seconds later, many at
//! once, each with the credentials of who read it last.

use std::collections::BTreeMap;

use ff2_proto::{InodeId, pb, relatime};

use crate::limits;

/// What was read when, and by whom.
#[derive(Clone, Debug, Default)]
pub struct Accesses {
    noted: BTreeMap<InodeId, Access>,
    /// On their way; what is read again meanwhile is noted anew.
    told: BTreeMap<InodeId, i64>,
}

#[derive(Clone, Debug)]
struct Access {
    at_ns: i64,
    cred: pb::Credentials,
}

impl Accesses {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.noted.is_empty() && self.told.is_empty()
    }

    /// A read at this time of what has these attributes. True if that changes its access time. Of more inodes than the
    /// namespace hears of in time, the rest is not noted.
    pub fn note(&mut self, attr: &pb::Attr, at_ns: i64, cred: &pb::Credentials) -> bool {
        let (inode, mut seen) = (InodeId(attr.inode), *attr);
        self.overlay(&mut seen);
        let has_room = self.noted.len() < limits::ACCESSES_MAX || self.noted.contains_key(&inode);
        let is_due = has_room && relatime::is_due(&seen, at_ns);
        if is_due {
            self.noted.insert(inode, Access { at_ns, cred: cred.clone() });
        }
        is_due
    }

    /// Programs that look at an inode which they read see that they did.
    pub fn overlay(&self, attr: &mut pb::Attr) {
        let inode = InodeId(attr.inode);
        let noted = self.noted.get(&inode).map(|access| access.at_ns);
        let at_ns = noted.max(self.told.get(&inode).copied());
        if let Some(at_ns) = at_ns.filter(|at_ns| relatime::is_due(attr, *at_ns)) {
            attr.atime_ns = at_ns;
        }
    }

    /// A program chose the time: what was read before tells nothing any more. True if that is on its way, and must
    /// arrive first.
    #[must_use]
    pub fn forget(&mut self, inode: InodeId) -> bool {
        self.noted.remove(&inode);
        self.told.contains_key(&inode)
    }

    /// What is to be told next, at most [`limits::ACCESSES_TOLD`] of one caller. Until [`Accesses::arrived`] nothing
    /// else is taken.
    pub fn take(&mut self) -> Option<(pb::Credentials, pb::TouchAtimeOp)> {
        debug_assert!(self.told.is_empty(), "one after the other");
        let cred = self.noted.first_key_value()?.1.cred.clone();
        let of_caller = self.noted.iter().filter(|(_, access)| access.cred == cred);
        self.told = of_caller
            .map(|(inode, access)| (*inode, access.at_ns))
            .take(limits::ACCESSES_TOLD)
            .collect();
        self.told.keys().for_each(|inode| drop(self.noted.remove(inode)));
        let atimes = self.told.iter();
        let atimes = atimes.map(|(inode, at_ns)| pb::Atime { inode: inode.0, atime_ns: *at_ns });
        Some((cred, pb::TouchAtimeOp { atimes: atimes.collect() }))
    }

    /// The namespace knows what was taken, or does not want to.
    pub fn arrived(&mut self) {
        self.told.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32) -> pb::Credentials {
        pb::Credentials { uid, ..Default::default() }
    }

    fn attr(inode: u64, atime_ns: i64, mtime_ns: i64) -> pb::Attr {
        pb::Attr { inode, atime_ns, mtime_ns, ..Default::default() }
    }

    fn seen(accesses: &Accesses, mut attr: pb::Attr) -> i64 {
        accesses.overlay(&mut attr);
        attr.atime_ns
    }

    #[test]
    fn a_read_is_seen_here_at_once_and_told_once() {
        let mut accesses = Accesses::new();
        assert!(accesses.note(&attr(5, 90, 95), 100, &user(1)));
        assert!(
            !accesses.note(&attr(5, 90, 95), 105, &user(1)),
            "relatime has it that once is enough"
        );
        assert!(!accesses.note(&attr(8, 97, 95), 105, &user(1)), "that it was read is known");
        assert_eq!(seen(&accesses, attr(5, 90, 95)), 100);
        assert_eq!(seen(&accesses, attr(6, 90, 95)), 90, "another one");
        assert_eq!(seen(&accesses, attr(5, 97, 95)), 97, "somebody else told it meanwhile");
        let (cred, told) = accesses.take().unwrap();
        assert_eq!((cred, told.atimes), (user(1), vec![pb::Atime { inode: 5, atime_ns: 100 }]));
        assert_eq!(seen(&accesses, attr(5, 90, 95)), 100, "while it is on its way");
        assert!(!accesses.note(&attr(5, 90, 95), 110, &user(1)));
        assert!(accesses.note(&attr(5, 90, 115), 120, &user(1)), "it was changed since");
        accesses.arrived();
        assert_eq!(seen(&accesses, attr(5, 100, 115)), 120);
        assert!(accesses.take().is_some());
        accesses.arrived();
        assert!(accesses.is_empty() && accesses.take().is_none());
    }

    #[test]
    fn each_caller_tells_what_is_his() {
        let mut accesses = Accesses::new();
        for (inode, uid) in [(1, 7), (2, 8), (3, 7)] {
            assert!(accesses.note(&attr(inode, 90, 95), 100, &user(uid)));
        }
        let mut told = Vec::new();
        while let Some((cred, op)) = accesses.take() {
            told.push((cred.uid, op.atimes.iter().map(|atime| atime.inode).collect::<Vec<_>>()));
            accesses.arrived();
        }
        assert_eq!(told, [(7, vec![1, 3]), (8, vec![2])]);
    }

    #[test]
    fn a_time_that_was_chosen_stays() {
        let mut accesses = Accesses::new();
        assert!(accesses.note(&attr(5, 90, 95), 100, &user(1)));
        assert!(!accesses.forget(InodeId(5)));
        assert!(accesses.is_empty(), "nobody hears of it");
        assert!(accesses.note(&attr(5, 90, 95), 100, &user(1)));
        accesses.take().unwrap();
        assert!(accesses.forget(InodeId(5)), "what is on its way comes first");
        accesses.arrived();
        assert!(!accesses.forget(InodeId(5)));
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let mut accesses = Accesses::new();
        let many = limits::ACCESSES_MAX as u64 + 10;
        let noted = (0..many).filter(|inode| accesses.note(&attr(*inode, 9, 9), 100, &user(1)));
        assert_eq!(noted.count(), limits::ACCESSES_MAX);
        assert!(accesses.note(&attr(3, 9, 150), 200, &user(1)), "what is noted is kept up");
        let (mut told, mut latest) = (0, 0);
        while let Some((_, op)) = accesses.take() {
            assert!(op.atimes.len() <= limits::ACCESSES_TOLD);
            told += op.atimes.len();
            latest = op.atimes.iter().map(|atime| atime.atime_ns).max().unwrap().max(latest);
            accesses.arrived();
        }
        assert_eq!((told, latest), (limits::ACCESSES_MAX, 200));
    }
}
