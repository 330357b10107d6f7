//! The inodes that are open here: their layout, grants, registration as written, length, and the bytes of
//! small ones.

mod behind;
mod inline;
mod room;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use ff2_client_core::{InlineWrites, Lengths, OpenInodes, ReadSpan, lengths::Report, read_spans};
use ff2_proto::{ChainId, ChunkId, Code, InodeId, Status, pb, relatime};
use parking_lot::Mutex;
use tokio::sync::RwLock;

pub(crate) use behind::{Behind, Part, Piece};
pub(crate) use inline::Place;

use crate::{OpenHow, Result, client::Shared, turn::Turns};

/// All of them, and what the session must know of them.
#[derive(Debug)]
pub(crate) struct Inodes {
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    table: BTreeMap<InodeId, Arc<OpenInode>>,
    holds: OpenInodes,
    lengths: Lengths,
}

/// One inode, shared by all its handles.
#[derive(Debug)]
pub(crate) struct OpenInode {
    pub(crate) id: InodeId,
    /// Shared by writes and reads of lengths, alone for truncation, appends and the closing flush.
    /// Taken before `registering`.
    pub(crate) gate: RwLock<()>,
    /// Held while a writer registers anew, so that its fellows do not do the same.
    pub(crate) registering: tokio::sync::Mutex<()>,
    /// Held by the reporter of lengths, so that it does not report twice at the same time.
    pub(crate) reporting: tokio::sync::Mutex<()>,
    pub(crate) turns: Turns,
    /// Shared by writes that are kept for the namespace, alone for the move to chunks. Taken after `gate`.
    pub(crate) moving: RwLock<()>,
    /// Writes that returned before they came to their chains.
    pub(crate) behind: Behind,
    state: Mutex<OpenState>,
}

#[derive(Debug)]
struct OpenState {
    attr: pb::Attr,
    attr_at: Instant,
    chains: Arc<[ChainId]>,
    read_grant: Bytes,
    write_grant: Bytes,
    readers: u32,
    /// Of the readers, those that opened it to run it.
    runners: u32,
    writers: u32,
    registered: Registered,
    /// The session in which this client holds the lock of who appends; 0: none.
    appends_in: u64,
    /// Others who want it would break the callback that came with it.
    keeps_append: bool,
    opener: pb::Credentials,
    /// When this client wrote last; 0: nothing unreported.
    mtime_ns: i64,
    /// Changes of content by this client: what was read ahead before is void.
    epoch: u64,
    lost: Option<Status>,
    /// Of an inline file: what it said, and what it was not told.
    inline_base: Option<inline::Base>,
    inline_writes: InlineWrites,
    /// It may be written up to here before the namespace is asked what quotas leave.
    grow_to: u64,
}

/// Opens of an inode for writing that the namespace counts for a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) session: u64,
    pub(crate) opens: u32,
}

impl Registered {
    /// One more; what was registered in another session went with it.
    fn add(&mut self, session: u64) {
        let opens = if self.session == session { self.opens } else { 0 };
        *self = Self { session, opens: opens + 1 };
    }
}

/// Keeps an inode open in the table; the last one takes it out.
pub(crate) struct Hold {
    shared: Arc<Shared>,
    inode: InodeId,
    /// The last notice that was acknowledged before.
    acknowledged: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.inodes.close(self.inode);
    }
}

impl Hold {
    /// Counts the inode as open from now on.
    pub(crate) fn new(shared: &Arc<Shared>, inode: InodeId) -> Self {
        let acknowledged = {
            let mut inner = shared.inodes.inner.lock();
            inner.holds.opening(inode);
            inner.holds.seen()
        };
        Self { shared: shared.clone(), inode, acknowledged }
    }

    /// Whether an orphan with this number stays because of the hold: its notice is acknowledged with the
    /// hold, not without it. 0: the namespace does not tell.
    pub(crate) fn keeps(&self, orphan_seq: u64) -> bool {
        orphan_seq > self.acknowledged.max(self.shared.session.orphans_before())
    }
}

/// A create in flight; counts until dropped.
#[derive(Debug)]
pub(crate) struct Creating<'a> {
    inodes: &'a Inodes,
    create: u64,
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        self.inodes.inner.lock().holds.created(self.create);
    }
}

impl Inodes {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), inner: Mutex::default() }
    }

    pub(crate) fn count(&self) -> usize {
        self.inner.lock().table.len()
    }

    pub(crate) fn get(&self, inode: InodeId) -> Option<Arc<OpenInode>> {
        self.inner.lock().table.get(&inode).cloned()
    }

    /// The inode's entry, made empty if it is the first.
    pub(crate) fn entry(&self, inode: InodeId) -> Arc<OpenInode> {
        let mut inner = self.inner.lock();
        let entry = inner.table.entry(inode).or_insert_with(|| Arc::new(OpenInode::new(inode)));
        entry.clone()
    }

    fn close(&self, inode: InodeId) {
        let mut inner = self.inner.lock();
        inner.holds.closed(inode);
        if !inner.holds.is_open(inode) {
            inner.table.remove(&inode);
            inner.lengths.forget(inode);
        }
    }

    pub(crate) fn creating(&self) -> Creating<'_> {
        let create = self.inner.lock().holds.creating();
        Creating { inodes: self, create }
    }

    // ---- what the session asks and learns ----

    pub(crate) fn keepalive(&self) -> (u64, Vec<InodeId>) {
        self.inner.lock().holds.keepalive()
    }

    /// Whether the notices call for an answer now.
    pub(crate) fn noticed(&self, notices: &[pb::OrphanNotice]) -> bool {
        let mut inner = self.inner.lock();
        let before = inner.holds.seen();
        for notice in notices {
            inner.holds.noticed(notice.seq, InodeId(notice.inode));
        }
        inner.holds.seen() > before
    }

    /// Every open inode, to be taken over into a new session.
    pub(crate) fn session_renewed(&self) -> Vec<Arc<OpenInode>> {
        let mut inner = self.inner.lock();
        inner.holds.session_renewed();
        inner.table.values().cloned().collect()
    }

    // ---- lengths ----

    pub(crate) fn wrote(&self, inode: &OpenInode, end: u64) {
        let now = self.started.elapsed();
        inode.content_written();
        self.inner.lock().lengths.wrote(now, inode.id, end);
    }

    pub(crate) fn attempted(&self, inode: &OpenInode, end: u64) {
        let now = self.started.elapsed();
        inode.content_written();
        self.inner.lock().lengths.attempted(now, inode.id, end);
    }

    pub(crate) fn report(&self, inode: InodeId) -> Option<Report> {
        self.inner.lock().lengths.report(inode)
    }

    pub(crate) fn reported(&self, report: Report) {
        let mut inner = self.inner.lock();
        inner.lengths.reported(report);
        let clean = !inner.lengths.is_dirty(report.inode);
        if let Some(open) = inner.table.get(&report.inode).filter(|_| clean) {
            open.state.lock().mtime_ns = 0;
        }
    }

    pub(crate) fn truncated(&self, inode: InodeId, size: u64) {
        self.inner.lock().lengths.truncated(inode, size);
    }

    /// Open inodes with a write that is unreported for this long.
    pub(crate) fn overdue(&self, age: Duration) -> Vec<Arc<OpenInode>> {
        let now = self.started.elapsed();
        let inner = self.inner.lock();
        let told: BTreeSet<InodeId> = inner.lengths.overdue(now, age).collect();
        let overdue =
            |open: &&Arc<OpenInode>| told.contains(&open.id) || open.behind.is_overdue(age);
        inner.table.values().filter(overdue).cloned().collect()
    }

    /// Whether this client wrote something that the namespace does not know.
    pub(crate) fn is_dirty(&self, inode: InodeId) -> bool {
        let inner = self.inner.lock();
        let is_behind = |open: &Arc<OpenInode>| open.behind.end() > 0;
        inner.lengths.is_dirty(inode) || inner.table.get(&inode).is_some_and(is_behind)
    }

    /// Whether somebody here has it open for writing, or wrote what the namespace does not know.
    pub(crate) fn is_written(&self, inode: InodeId) -> bool {
        let has_writers = self.get(inode).is_some_and(|open| open.writers() > 0);
        has_writers || self.is_dirty(inode)
    }

    /// Another client changes these (`None`: perhaps all): what was read ahead of them is void. Those that
    /// are open here.
    pub(crate) fn invalidated(&self, inodes: Option<&[InodeId]>) -> Vec<Arc<OpenInode>> {
        let inner = self.inner.lock();
        let open: Vec<Arc<OpenInode>> = match inodes {
            Some(inodes) => inodes.iter().filter_map(|id| inner.table.get(id).cloned()).collect(),
            None => inner.table.values().cloned().collect(),
        };
        open.iter().for_each(|open| open.content_changed());
        open
    }

    /// Puts what this client wrote and did not report yet over the namespace's attributes, and
    /// remembers these for an open inode. An answer that was overtaken by a newer one becomes that.
    pub(crate) fn merge(&self, attr: &mut pb::Attr) {
        let inner = self.inner.lock();
        let inode = InodeId(attr.inode);
        if let Some(open) = inner.table.get(&inode) {
            let mut state = open.state.lock();
            state.take_attr(attr);
            if state.attr.version > attr.version {
                *attr = state.attr;
            }
            let mtime_ns = state.mtime_ns;
            if mtime_ns > attr.mtime_ns {
                attr.mtime_ns = mtime_ns;
                attr.ctime_ns = attr.ctime_ns.max(mtime_ns);
            }
        }
        attr.size = inner.lengths.size(inode, attr.size);
        if let Some(open) = inner.table.get(&inode) {
            attr.size = attr.size.max(open.behind.end());
        }
    }

    /// Size as this client sees it, from what it knows.
    pub(crate) fn size(&self, inode: &OpenInode) -> u64 {
        // Both at once: a report's answer raises the one before it drops the other.
        let inner = self.inner.lock();
        let server = inode.state.lock().attr.size;
        inner.lengths.size(inode.id, server).max(inode.behind.end())
    }
}

impl OpenInode {
    fn new(id: InodeId) -> Self {
        let state = OpenState {
            attr: pb::Attr { inode: id.0, ..pb::Attr::default() },
            attr_at: Instant::now(),
            chains: Arc::from([]),
            read_grant: Bytes::new(),
            write_grant: Bytes::new(),
            readers: 0,
            runners: 0,
            writers: 0,
            registered: Registered::default(),
            appends_in: 0,
            keeps_append: false,
            opener: pb::Credentials::default(),
            mtime_ns: 0,
            epoch: 0,
            lost: None,
            inline_base: None,
            inline_writes: InlineWrites::new(),
            grow_to: u64::MAX,
        };
        Self {
            id,
            gate: RwLock::new(()),
            registering: tokio::sync::Mutex::new(()),
            reporting: tokio::sync::Mutex::new(()),
            turns: Turns::default(),
            moving: RwLock::new(()),
            behind: Behind::default(),
            state: Mutex::new(state),
        }
    }

    /// Takes in the answer to an open of this session, and counts its handle.
    pub(crate) fn opened(
        &self,
        op: &pb::OpenOp,
        reply: &pb::NsReply,
        session: u64,
        chains: Arc<[ChainId]>,
        cred: &pb::Credentials,
    ) {
        let mut state = self.state.lock();
        if let Some(attr) = &reply.attr {
            state.take_attr(attr);
        }
        state.chains = chains;
        state.take_grant(op, &reply.grant);
        state.lost = None;
        if op.write {
            state.writers += 1;
            state.registered.add(session);
            state.opener = cred.clone();
        } else {
            state.readers += 1;
            state.runners += u32::from(op.execute && !op.read);
            if state.writers == 0 {
                state.opener = cred.clone();
            }
        }
        if op.write || op.truncate {
            state.take_room(reply, 0);
        }
        if op.truncate {
            state.epoch += 1;
        }
    }

    /// A handle is gone; how many of its kind are left.
    pub(crate) fn handle_closed(&self, how: OpenHow) -> u32 {
        let mut state = self.state.lock();
        if !how.write {
            state.runners -= u32::from(how.execute && !how.read);
        }
        let count = if how.write { &mut state.writers } else { &mut state.readers };
        assert!(*count > 0, "{:?}: more closes than opens", self.id);
        *count -= 1;
        *count
    }

    pub(crate) fn writers(&self) -> u32 {
        self.state.lock().writers
    }

    /// Whether a handle is open, beside opens in flight.
    pub(crate) fn has_handles(&self) -> bool {
        let state = self.state.lock();
        state.readers + state.writers > 0
    }

    /// Opens for writing that the namespace counts for this session. A write needs one.
    pub(crate) fn registered(&self, session: u64) -> u32 {
        let registered = self.state.lock().registered;
        if registered.session == session { registered.opens } else { 0 }
    }

    pub(crate) fn deregistered(&self, ended: Registered) {
        let mut state = self.state.lock();
        if state.registered.session == ended.session {
            state.registered.opens = state.registered.opens.saturating_sub(ended.opens);
            if state.registered.opens == 0 {
                state.appends_in = 0;
            }
        }
    }

    pub(crate) fn appends_in(&self, session: u64) -> bool {
        self.state.lock().appends_in == session
    }

    pub(crate) fn append_locked(&self, session: u64, keeps: bool) {
        let mut state = self.state.lock();
        (state.appends_in, state.keeps_append) = (session, keeps);
    }

    pub(crate) fn keeps_append(&self) -> bool {
        self.state.lock().keeps_append
    }

    /// Somebody else may want it.
    pub(crate) fn append_wanted(&self) {
        self.state.lock().keeps_append = false;
    }

    pub(crate) fn append_unlocked(&self) {
        self.state.lock().appends_in = 0;
    }

    /// What takes this inode's handles over into a new session; `None`: nothing to take over.
    pub(crate) fn reopen_op(&self) -> Option<pb::OpenOp> {
        let state = self.state.lock();
        let read = state.readers > state.runners;
        let write = state.writers > 0;
        let execute = state.runners > 0 && !read;
        // A writer that may read too got one grant for both.
        let read = read || (write && state.read_grant == state.write_grant);
        (read || write || execute).then_some(pb::OpenOp {
            inode: self.id.0,
            read,
            write,
            truncate: false,
            execute,
        })
    }

    pub(crate) fn opener(&self) -> pb::Credentials {
        self.state.lock().opener.clone()
    }

    /// The namespace made what was foreseen.
    pub(crate) fn granted(&self, read: bool, write: bool, grant: &Bytes) {
        let op = pb::OpenOp { read, write, ..Default::default() };
        self.state.lock().take_grant(&op, grant);
    }

    /// It lies elsewhere than was foreseen. It has no chunks yet.
    pub(crate) fn placed(&self, layout: Option<pb::Layout>, chains: Arc<[ChainId]>) {
        let mut state = self.state.lock();
        (state.attr.layout, state.chains) = (layout, chains);
    }

    /// Takes in the answer to an open of this session for handles that are counted already.
    pub(crate) fn reopened(&self, op: &pb::OpenOp, reply: &pb::NsReply, session: u64) {
        let mut state = self.state.lock();
        if let Some(attr) = &reply.attr {
            state.take_attr(attr);
        }
        state.take_grant(op, &reply.grant);
        if op.write {
            state.registered.add(session);
            state.take_room(reply, 0);
        }
    }

    pub(crate) fn lost(&self, failure: Status) {
        let mut state = self.state.lock();
        state.registered = Registered::default();
        let detail = format!("its session expired and it could not be opened again: {failure}");
        state.lost = Some(Status::new(Code::StaleInode, detail));
    }

    /// Fails for a file that was lost with its session.
    pub(crate) fn check_alive(&self) -> Result<()> {
        self.state.lock().lost.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn read_grant(&self) -> Bytes {
        let state = self.state.lock();
        // A writer's grant may read too; the servers say if it does not.
        let none = state.read_grant.is_empty();
        if none { state.write_grant.clone() } else { state.read_grant.clone() }
    }

    pub(crate) fn write_grant(&self) -> Bytes {
        self.state.lock().write_grant.clone()
    }

    pub(crate) fn layout(&self) -> (pb::Layout, Arc<[ChainId]>) {
        let state = self.state.lock();
        (state.attr.layout.unwrap_or_default(), state.chains.clone())
    }

    /// What a read of these bytes consists of. Of a file that a snapshot shows the chains know the chunks by the
    /// number that it had.
    pub(crate) fn read_spans(
        &self,
        layout: &pb::Layout,
        chains: &[ChainId],
        offset: u64,
        length: u64,
    ) -> Vec<ReadSpan> {
        let mut spans = read_spans(self.id, layout, chains, offset, length);
        let pb::Attr { snapshot, origin, .. } = self.state.lock().attr;
        if snapshot != 0 {
            for span in &mut spans {
                span.chunk = ChunkId::new(InodeId(origin), span.chunk.index).at(snapshot);
            }
        }
        spans
    }

    pub(crate) fn attr(&self) -> (pb::Attr, Duration) {
        let state = self.state.lock();
        (state.attr, state.attr_at.elapsed())
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    pub(crate) fn content_changed(&self) {
        self.state.lock().epoch += 1;
    }

    pub(crate) fn mtime_ns(&self) -> i64 {
        self.state.lock().mtime_ns
    }

    /// The attributes, if a read now changes the access time by them.
    pub(crate) fn if_atime_is_due(&self, at_ns: i64) -> Option<pb::Attr> {
        let attr = self.state.lock().attr;
        let is_due = attr.version > 0 && attr.snapshot == 0 && relatime::is_due(&attr, at_ns);
        is_due.then_some(attr)
    }

    /// This client changed the bytes: what was read ahead is void.
    pub(crate) fn content_written(&self) {
        let mut state = self.state.lock();
        state.epoch += 1;
        state.mtime_ns = now_ns();
    }
}

impl OpenState {
    /// Answers may overtake each other: an older one changes nothing.
    fn take_attr(&mut self, attr: &pb::Attr) {
        if attr.version < self.attr.version {
            return;
        }
        if attr.version > self.attr.version {
            self.epoch += 1;
        }
        let layout = attr.layout.or(self.attr.layout);
        self.attr = pb::Attr { layout, ..*attr };
        self.attr_at = Instant::now();
    }

    fn take_grant(&mut self, op: &pb::OpenOp, grant: &Bytes) {
        if grant.is_empty() {
            return;
        }
        if op.read || op.execute {
            self.read_grant = grant.clone();
        }
        if op.write {
            self.write_grant = grant.clone();
        }
    }
}

/// Wall clock, for the times that people see.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: InodeId = InodeId(9);

    fn attr(version: u64, size: u64) -> pb::Attr {
        pb::Attr { inode: FILE.0, version, size, ..Default::default() }
    }

    #[test]
    fn an_answer_that_was_overtaken_shows_what_overtook_it() {
        let inodes = Inodes::new();
        let open = inodes.entry(FILE);
        inodes.merge(&mut attr(3, 300));
        let mut late = attr(2, 200);
        inodes.merge(&mut late);
        assert_eq!((late.version, late.size), (3, 300));
        inodes.wrote(&open, 400);
        let mut again = attr(1, 100);
        inodes.merge(&mut again);
        assert_eq!(again.size, 400, "with what is written here");
    }

    #[test]
    fn no_reader_sees_the_end_inside_of_what_was_written() {
        let inodes = Arc::new(Inodes::new());
        let open = inodes.entry(FILE);
        let writer = std::thread::spawn({
            let (inodes, open) = (inodes.clone(), open.clone());
            move || {
                for end in 1..20_000 {
                    inodes.wrote(&open, end);
                    let report = inodes.report(FILE).unwrap();
                    inodes.merge(&mut attr(end, end));
                    inodes.reported(report);
                }
            }
        });
        let mut before = 0;
        while !writer.is_finished() {
            let size = inodes.size(&open);
            assert!(size >= before, "{size} after {before}");
            before = size;
        }
        writer.join().unwrap();
    }
}
