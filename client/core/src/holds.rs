//! Which unlinked inodes must live because they are open here.
//!
//! The namespace asks each session about an inode that lost its last name, by a notice with a
//! number. A session acknowledges a notice once it knows that the inode is not open here, or names
//! it among its holds. An open that is in flight counts as open, and while a create is in flight
//! (its inode is unknown) the notices that came since it began are not acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use ff2_proto::InodeId;

#[derive(Clone, Debug, Default)]
pub struct OpenInodes {
    /// Handles and opens in flight, per inode.
    open: BTreeMap<InodeId, u32>,
    /// Unlinked, by a notice or by our own unlink.
    orphans: BTreeSet<InodeId>,
    /// Creates in flight, by their number.
    creates: BTreeSet<u64>,
    next_create: u64,
    /// Notices that wait for creates: number of the notice, first create that began after it.
    waiting: BTreeMap<u64, u64>,
    seen: u64,
}

impl OpenInodes {
    pub fn new() -> Self {
        Self::default()
    }

    /// Before an open is sent, and for each handle that is made.
    pub fn opening(&mut self, inode: InodeId) {
        *self.open.entry(inode).or_insert(0) += 1;
    }

    /// The open failed, or the handle was closed.
    pub fn closed(&mut self, inode: InodeId) {
        let Some(count) = self.open.get_mut(&inode) else {
            debug_assert!(false, "{inode:?} was not open");
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.open.remove(&inode);
            self.orphans.remove(&inode);
        }
    }

    /// Before a create is sent. Its answer's inode is counted by [`Self::opening`] before
    /// [`Self::created`].
    pub fn creating(&mut self) -> u64 {
        let create = self.next_create;
        self.next_create += 1;
        self.creates.insert(create);
        create
    }

    pub fn created(&mut self, create: u64) {
        self.creates.remove(&create);
        self.settle();
    }

    pub fn is_open(&self, inode: InodeId) -> bool {
        self.open.contains_key(&inode)
    }

    /// A notice arrived. Notices come again until they are acknowledged.
    pub fn noticed(&mut self, seq: u64, inode: InodeId) {
        // Remembered even if it is not open now: a create in flight may turn out to be it.
        self.orphans.insert(inode);
        if seq > self.seen {
            self.waiting.entry(seq).or_insert(self.next_create);
        }
        self.settle();
    }

    /// The last notice that was handled. An orphan with a higher number stays while what is opened now is
    /// open: its notice will be acknowledged with a hold.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// What the next keepalive says: the last notice that was handled, and the holds.
    pub fn keepalive(&self) -> (u64, Vec<InodeId>) {
        let holds = self.orphans.iter().filter(|inode| self.is_open(**inode)).copied().collect();
        (self.seen, holds)
    }

    /// The session is a new one: its notices count from the start.
    pub fn session_renewed(&mut self) {
        self.waiting.clear();
        self.seen = 0;
    }

    /// Acknowledges notices in order, up to the first that a create holds back.
    fn settle(&mut self) {
        let oldest_create = self.creates.first().copied().unwrap_or(u64::MAX);
        while let Some((&seq, &first_later)) = self.waiting.first_key_value()
            && oldest_create >= first_later
        {
            self.waiting.remove(&seq);
            self.seen = seq;
        }
        if self.waiting.is_empty() {
            let open = &self.open;
            self.orphans.retain(|inode| open.contains_key(inode));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: InodeId = InodeId(10);
    const B: InodeId = InodeId(11);

    #[test]
    fn an_open_inode_is_held_until_its_last_close() {
        let mut inodes = OpenInodes::new();
        inodes.opening(A);
        inodes.opening(A);
        inodes.noticed(1, A);
        inodes.noticed(2, B);
        assert_eq!(inodes.keepalive(), (2, vec![A]));
        inodes.closed(A);
        assert_eq!(inodes.keepalive(), (2, vec![A]));
        inodes.closed(A);
        assert_eq!(inodes.keepalive(), (2, vec![]));
    }

    #[test]
    fn a_create_in_flight_holds_back_the_notices_that_may_be_its_own() {
        let mut inodes = OpenInodes::new();
        let create = inodes.creating();
        inodes.noticed(1, A);
        assert_eq!(inodes.keepalive(), (0, vec![]), "A may be what the create makes");
        let later = inodes.creating();
        inodes.opening(A);
        inodes.created(create);
        assert_eq!(inodes.keepalive(), (1, vec![A]), "a later create does not hold it back");
        inodes.created(later);
        assert_eq!(inodes.keepalive(), (1, vec![A]));
    }

    #[test]
    fn notices_are_acknowledged_in_order() {
        let mut inodes = OpenInodes::new();
        let create = inodes.creating();
        inodes.noticed(5, A);
        inodes.noticed(6, B);
        inodes.noticed(5, A);
        assert_eq!(inodes.keepalive().0, 0);
        inodes.created(create);
        assert_eq!(inodes.keepalive(), (6, vec![]));
        inodes.session_renewed();
        assert_eq!(inodes.keepalive().0, 0);
    }
}
