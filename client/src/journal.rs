//! Changes of names and attributes that this client's programs were told of before the namespace is:
//! what is foreseen goes behind, in order, many in one request (docs/design/0006).
//!
//! A change is foreseen if nobody else can know of what it changes, or change it meanwhile: its callbacks
//! are sole. Whoever else wants to know breaks them, and that is not acknowledged before all that waits here
//! was answered. All other changes of this client, and questions about what waits here, come after it too.

mod foresee;
mod known;
mod sender;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use ff2_client_core::{
    Folders, Rooms,
    rooms::{Need, Place},
};
use ff2_proto::{Code, InodeId, Status, TRASH_INODES, pb, pb::ns_request::Op};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Result, client::Shared, limits};
pub(crate) use foresee::Foresight;
pub(crate) use sender::start;

#[derive(Debug, Default)]
pub(crate) struct Journal {
    state: Mutex<State>,
    /// There is something to send, or somebody waits for it.
    wake: Notify,
    /// Entries were answered, or a change that was not foreseen has ended.
    progress: Notify,
    /// Entries that the namespace refused, or that went with their session.
    failures: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Entry>,
    /// Entries are numbered from 1, and answered in that order.
    pushed: u64,
    answered: u64,
    /// Up to here somebody waits.
    wanted: u64,
    pending: BTreeMap<InodeId, Pending>,
    /// Changes in flight that were not foreseen, by the inodes that they name.
    unforeseen: BTreeMap<InodeId, u32>,
    folders: Folders,
    numbers: Numbers,
    rooms: Rooms,
}

/// Numbers for new inodes, of one session.
#[derive(Debug, Default)]
struct Numbers {
    session: u64,
    /// The volume's export rules when they were asked for: under others nothing may go behind any more.
    ruled_at: u64,
    free: VecDeque<u64>,
    are_coming: bool,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    session: u64,
    cred: pb::Credentials,
    op: Op,
    at_ns: i64,
    foreseen: pb::NsReply,
    /// It makes this one.
    made: Option<InodeId>,
    concerns: Vec<InodeId>,
    /// What it takes of quotas.
    takes: (Place, Need),
}

/// What the entries of an inode come to.
#[derive(Debug)]
struct Pending {
    last: u64,
    /// As it will be; `None`: that is not known.
    attr: Option<pb::Attr>,
}

/// A change that was not foreseen, until it is dropped.
pub(crate) struct Unforeseen<'a> {
    shared: &'a Shared,
    inodes: Vec<InodeId>,
    /// What it did to all that it names was learnt.
    pub(crate) is_known: bool,
}

impl Drop for Unforeseen<'_> {
    fn drop(&mut self) {
        let journal = &self.shared.journal;
        if !self.is_known {
            self.shared.coherence.let_go(&self.inodes);
        }
        let mut state = journal.state.lock();
        for inode in &self.inodes {
            if !self.is_known {
                state.folders.forget(*inode);
            }
            let count = state.unforeseen.get_mut(inode).expect("it was counted");
            *count -= 1;
            if *count == 0 {
                state.unforeseen.remove(inode);
            }
        }
        drop(state);
        journal.progress.notify_waiters();
    }
}

impl Journal {
    pub(crate) fn new() -> Result<Self> {
        let mut key = [0; 16];
        getrandom::fill(&mut key)
            .map_err(|error| Status::new(Code::Internal, format!("no randomness: {error}")))?;
        let half = |at: usize| u64::from_le_bytes(key[at..at + 8].try_into().expect("8 bytes"));
        let state = State { folders: Folders::new([half(0), half(8)]), ..State::default() };
        Ok(Self { state: Mutex::new(state), ..Self::default() })
    }

    /// Puts what waits here over the attributes that the namespace knows.
    pub(crate) fn overlay(&self, attr: &mut pb::Attr) {
        let state = self.state.lock();
        let pending = state.pending.get(&InodeId(attr.inode));
        if let Some(newer) = pending.and_then(|pending| pending.attr)
            && newer.version > attr.version
        {
            *attr = newer;
        }
    }

    /// This client read it: what it knows of its attributes shows that.
    pub(crate) fn accessed(&self, inode: InodeId, at_ns: i64) {
        self.state.lock().folders.accessed(inode, at_ns);
    }

    /// Others change these (`None`: perhaps all), or look at them.
    pub(crate) fn forget(&self, inodes: Option<&[InodeId]>) {
        let mut state = self.state.lock();
        match inodes {
            Some(inodes) => inodes.iter().for_each(|inode| state.folders.forget(*inode)),
            None => state.folders.forget_all(),
        }
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The last entry that concerns one of these; 0: none waits.
    fn last_of(&self, inodes: &[InodeId]) -> u64 {
        let state = self.state.lock();
        let last = |inode| state.pending.get(inode).map(|pending| pending.last);
        inodes.iter().filter_map(last).max().unwrap_or(0)
    }

    /// Returns when all entries up to this one were answered.
    async fn settle(&self, number: u64, deadline: Instant) -> Result<()> {
        loop {
            let progress = self.progress.notified();
            {
                let mut state = self.state.lock();
                if state.answered >= number {
                    return Ok(());
                }
                state.wanted = state.wanted.max(number);
            }
            self.wake.notify_one();
            if tokio::time::timeout_at(deadline.into(), progress).await.is_err() {
                let detail = "changes that were made before are not with the namespace yet";
                return Err(Status::new(Code::Timeout, detail));
            }
        }
    }

    /// Returns when an entry was answered, or a change that was not foreseen has ended, and in any case
    /// soon.
    pub(crate) async fn moves(&self) {
        let progress = self.progress.notified();
        self.wake.notify_one();
        let _ = tokio::time::timeout(limits::JOURNAL_PAUSE, progress).await;
    }
}

impl Shared {
    /// A change that the namespace is asked for: nothing of what it names is foreseen meanwhile.
    pub(crate) fn unforeseen(&self, op: &Op) -> Unforeseen<'_> {
        let inodes = named(op);
        let mut state = self.journal.state.lock();
        for inode in &inodes {
            *state.unforeseen.entry(*inode).or_default() += 1;
        }
        Unforeseen { shared: self, inodes, is_known: false }
    }

    /// Returns when the namespace has all that programs were told so far.
    pub(crate) async fn settle_journal(&self, deadline: Instant) -> Result<()> {
        let pushed = self.journal.state.lock().pushed;
        self.journal.settle(pushed, deadline).await
    }

    /// As [`Self::settle_journal`], of what a question names.
    pub(crate) async fn settle_named(&self, op: &Op, deadline: Instant) -> Result<()> {
        let inodes = named(op);
        // The trash shows what any of the changes removed.
        let is_of_all = matches!(op, Op::Resolve(_)) || inodes.iter().any(|id| *id >= TRASH_INODES);
        let last = if is_of_all {
            self.journal.state.lock().pushed
        } else {
            self.journal.last_of(&inodes)
        };
        if last == 0 { Ok(()) } else { self.journal.settle(last, deadline).await }
    }

    /// Takes in what the namespace's answer to a change says of quotas.
    pub(crate) fn learn_room(&self, reply: &pb::NsReply) {
        if let Some(attr) = &reply.attr {
            let mut state = self.journal.state.lock();
            state.rooms.learn(Place::of(attr), reply.quota_room);
        }
    }

    /// Others want to know of these, of which nothing is foreseen any more: returns when the namespace has
    /// what was, or that was given up. It waits for nothing else, so that two clients that tell each other
    /// of something do not wait for each other.
    pub(crate) async fn let_go(&self, inodes: &[InodeId]) {
        self.let_go_up_to(self.journal.last_of(inodes)).await;
    }

    /// As [`Self::let_go`], of everything.
    pub(crate) async fn let_all_go(&self) {
        let pushed = self.journal.state.lock().pushed;
        self.let_go_up_to(pushed).await;
    }

    async fn let_go_up_to(&self, number: u64) {
        while let Err(failure) = self.journal.settle(number, self.deadline()).await {
            tracing::warn!(%failure, "others wait for changes made here");
        }
    }

    /// Something was foreseen wrongly, or the namespace does not promise to tell of it: it is cached by
    /// nobody any more.
    fn revoke(self: &Arc<Self>, inodes: Vec<InodeId>) {
        // They are looked at already, or with the namespace.
        let _ = self.coherence.invalidate(&inodes);
        self.journal.forget(Some(&inodes));
        for open in self.inodes.invalidated(Some(&inodes)) {
            self.let_append_go(open);
        }
        if let Some(telling) = self.coherence.tell(Some(inodes)) {
            tokio::spawn(telling);
        }
    }
}

/// The inodes that a request names.
fn named(op: &Op) -> Vec<InodeId> {
    let inodes: &[u64] = match op {
        Op::Lookup(op) => &[op.parent],
        Op::Create(op) => &[op.parent],
        Op::MakeNode(op) => &[op.parent],
        Op::Unlink(op) => &[op.parent],
        Op::Link(op) => &[op.inode, op.parent],
        Op::Rename(op) => &[op.parent, op.new_parent],
        Op::GetAttr(op) => &[op.inode],
        Op::StatFs(op) => &[op.inode],
        Op::ReadLink(op) => &[op.inode],
        Op::ReadDir(op) => &[op.inode],
        Op::Access(op) => &[op.inode],
        Op::ReadInline(op) => &[op.inode],
        Op::Open(op) => &[op.inode],
        Op::SetAttr(op) => &[op.inode],
        Op::Close(op) => &[op.inode],
        Op::ReportLength(op) => &[op.inode],
        Op::Spill(op) => &[op.inode],
        Op::SetLayout(op) => &[op.inode],
        Op::GetXattr(op) => &[op.inode],
        Op::ListXattrs(op) => &[op.inode],
        Op::SetXattr(op) => &[op.inode],
        Op::RemoveXattr(op) => &[op.inode],
        Op::GetLock(op) => &[op.inode],
        Op::SetLock(op) => &[op.inode],
        Op::Unlock(op) => &[op.inode],
        Op::CancelLock(op) => &[op.inode],
        Op::Resolve(op) => &[op.base],
        _ => &[],
    };
    inodes.iter().copied().map(InodeId).collect()
}
