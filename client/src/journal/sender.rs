//! Brings the journal to the namespace: in order, one request at a time, with all that waits.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use ff2_proto::{InodeId, Status, pb, pb::ns_request::Op};
use tokio::task::JoinHandle;

use super::{Entry, Journal};
use crate::{Result, client::Shared, inodes::OpenInode, limits};

/// Sends until the client is stopped. It holds no reference to the client between two requests.
pub(crate) fn start(shared: &Arc<Shared>) -> JoinHandle<()> {
    let (weak, journal) = (Arc::downgrade(shared), shared.journal.clone());
    tokio::spawn(async move {
        loop {
            let entries = journal.next_entries().await;
            let Some(shared) = weak.upgrade() else { return };
            shared.send_entries(entries).await;
        }
    })
}

impl Journal {
    /// Waits for entries, and a moment longer for others if nobody waits for them.
    async fn next_entries(&self) -> Vec<Entry> {
        let mut has_lingered = false;
        loop {
            let woken = self.wake.notified();
            {
                let mut state = self.state.lock();
                let is_enough = state.queue.len() >= limits::JOURNAL_BATCH
                    || state.wanted > state.answered
                    || has_lingered;
                if !state.queue.is_empty() && is_enough {
                    return take(&mut state.queue);
                }
                if !state.queue.is_empty() {
                    has_lingered = true;
                }
            }
            if has_lingered {
                let _ = tokio::time::timeout(limits::JOURNAL_LINGER, self.wanted()).await;
            } else {
                woken.await;
            }
        }
    }

    /// Returns when there is more to do than to linger.
    async fn wanted(&self) {
        loop {
            let woken = self.wake.notified();
            {
                let state = self.state.lock();
                if state.queue.len() >= limits::JOURNAL_BATCH || state.wanted > state.answered {
                    return;
                }
            }
            woken.await;
        }
    }
}

impl Shared {
    async fn send_entries(self: &Arc<Self>, entries: Vec<Entry>) {
        let since = self.coherence.position();
        let answers = self.send_changes(&entries).await;
        for (at, entry) in entries.iter().enumerate() {
            let outcome = match &answers {
                Ok(answers) => answers[at].clone(),
                Err(failure) => Err(failure.clone()),
            };
            match outcome {
                Ok(reply) => {
                    self.learn_room(&reply);
                    self.came_true(entry, since, reply).await;
                }
                Err(failure) => self.came_to_nothing(entry, failure),
            }
        }
        let last = entries.last().map_or(0, |entry| entry.number);
        let mut state = self.journal.state.lock();
        for inode in entries.iter().flat_map(|entry| &entry.concerns) {
            if state.pending.get(inode).is_some_and(|pending| pending.last <= last) {
                state.pending.remove(inode);
            }
        }
        state.answered = last;
        for (place, need) in entries.iter().map(|entry| entry.takes) {
            state.rooms.answered(place, need);
        }
        drop(state);
        self.journal.progress.notify_waiters();
    }

    async fn send_changes(&self, entries: &[Entry]) -> Result<Vec<Result<pb::NsReply>>> {
        let session = entries[0].session;
        let changes = entries.iter().map(|entry| {
            assert_eq!(entry.session, session, "what is foreseen in a session is sent in it");
            let (cred, op) = (Some(entry.cred.clone()), Some(entry.op.clone()));
            pb::NsRequest { cred, op, at_ns: entry.at_ns, ..Default::default() }
        });
        self.session.mutate_many(session, &self.own, changes.collect()).await
    }

    /// The namespace did it.
    async fn came_true(self: &Arc<Self>, entry: &Entry, since: u64, mut reply: pb::NsReply) {
        let is_promised = entry.made.is_none_or(|made| {
            reply.callbacks.iter().any(|callback| callback.inode == made.0 && callback.sole)
        });
        self.coherence.take(since, &mut reply);
        if let (Some(foreseen), Some(attr)) = (&entry.foreseen.attr, &reply.attr)
            && !is_as_foreseen(foreseen, attr)
        {
            tracing::error!(?foreseen, ?attr, op = ?entry.op, "an answer was not foreseen rightly");
            self.journal.failures.fetch_add(1, Ordering::Relaxed);
            self.revoke(entry.concerns.clone());
        }
        if !is_promised {
            self.revoke(entry.made.into_iter().collect());
        }
        match (&entry.op, reply.attr) {
            (Op::Create(op), Some(attr)) => {
                if let Some(open) = self.inodes.get(InodeId(attr.inode)) {
                    open.granted(op.read, op.write, &reply.grant);
                    self.made_elsewhere(entry, &open, &attr).await;
                }
            }
            (Op::Unlink(_), _) => {
                if let Some(mut attr) = reply.replaced_attr {
                    self.inodes.merge(&mut attr);
                }
            }
            _ => {}
        }
    }

    /// The table of chains has a newer version than this client knew: the file lies by that.
    async fn made_elsewhere(&self, entry: &Entry, open: &OpenInode, attr: &pb::Attr) {
        if attr.layout == entry.foreseen.attr.and_then(|attr| attr.layout) {
            return;
        }
        match self.file_chains(attr).await {
            Ok(chains) => open.placed(attr.layout, chains),
            Err(failure) => open.lost(failure),
        }
    }

    /// The namespace did not do what programs were told: it went with the session, or somebody else came
    /// between while this mount was cut off.
    fn came_to_nothing(self: &Arc<Self>, entry: &Entry, failure: Status) {
        tracing::error!(op = ?entry.op, %failure, "a change that was not synced is lost");
        self.journal.failures.fetch_add(1, Ordering::Relaxed);
        for inode in &entry.concerns {
            let is_folder = entry.foreseen.parent_attr.is_some_and(|attr| attr.inode == inode.0);
            if let Some(open) = self.inodes.get(*inode).filter(|_| !is_folder) {
                open.lost(failure.clone());
            }
        }
        self.revoke(entry.concerns.clone());
    }
}

/// As many as one request may hold.
fn take(queue: &mut VecDeque<Entry>) -> Vec<Entry> {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += bytes_of(&entry.op) + 6 * entry.cred.groups.len();
        bytes <= limits::JOURNAL_BATCH_BYTES
    };
    let count = queue.iter().take(limits::JOURNAL_BATCH).take_while(fits).count().max(1);
    queue.drain(..count).collect()
}

/// About how many it needs in a request.
fn bytes_of(op: &Op) -> usize {
    let writes = |writes: &[pb::InlineWrite]| -> usize {
        writes.iter().map(|write| write.bytes.len() + 16).sum()
    };
    let own = match op {
        Op::Create(op) => op.name.len(),
        Op::MakeNode(op) => op.name.len() + op.symlink_target.len(),
        Op::Unlink(op) => op.name.len(),
        Op::Close(op) => writes(&op.inline_writes),
        Op::ReportLength(op) => writes(&op.inline_writes),
        _ => 0,
    };
    own + limits::JOURNAL_ENTRY_BYTES
}

/// Times are the client's, unless its clock is too far away from the leader's.
fn is_as_foreseen(foreseen: &pb::Attr, attr: &pb::Attr) -> bool {
    let shape = |attr: &pb::Attr| {
        let pb::Attr { inode, kind, mode, uid, gid, nlink, size, version, inline, .. } = *attr;
        (inode, kind, mode, uid, gid, nlink, size, version, inline)
    };
    shape(foreseen) == shape(attr)
}
