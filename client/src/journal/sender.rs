//! Brings the journal to the namespace: in order, one request at a time, with all that waits.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use ff2_proto::{InodeId, Status, pb, pb::ns_request::Op};
use tokio::{task::JoinHandle, time::Instant};

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
    /// Waits for entries, and then for others that may go with them, if nobody waits for these.
    async fn next_entries(&self) -> Vec<Entry> {
        let mut until: Option<Instant> = None;
        loop {
            let woken = self.wake.notified();
            {
                let mut state = self.state.lock();
                let is_lazy = state.queue.iter().all(Entry::is_lazy);
                let linger = if is_lazy { limits::JOURNAL_LAZY } else { limits::JOURNAL_LINGER };
                let is_enough = state.queue.len() >= limits::JOURNAL_BATCH
                    || state.wanted > state.answered
                    || until.is_some_and(|until| until <= Instant::now());
                if !state.queue.is_empty() {
                    if is_enough {
                        return take(&mut state.queue);
                    }
                    let latest = Instant::now() + linger;
                    until = Some(until.map_or(latest, |until| until.min(latest)));
                }
            }
            match until {
                Some(until) => drop(tokio::time::timeout_at(until, woken).await),
                None => woken.await,
            }
        }
    }
}

impl Entry {
    /// It says only that a file is not open any more: nothing is lost that a program did if this goes with
    /// the session, and whoever is kept waiting by it has it sent.
    fn is_lazy(&self) -> bool {
        matches!(&self.op, Op::Close(op) if !op.wrote && op.inline_writes.is_empty())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{Need, Place},
        *,
    };

    fn entry(number: u64, op: Op) -> Entry {
        Entry {
            number,
            session: 1,
            cred: pb::Credentials::default(),
            op,
            at_ns: 0,
            foreseen: pb::NsReply::default(),
            made: None,
            concerns: Vec::new(),
            takes: (Place::of(&pb::Attr::default()), Need::default()),
        }
    }

    fn push(journal: &Journal, op: Op) {
        let mut state = journal.state.lock();
        state.pushed += 1;
        let number = state.pushed;
        state.queue.push_back(entry(number, op));
        drop(state);
        journal.wake.notify_one();
    }

    fn closed() -> Op {
        Op::Close(pb::CloseOp::default())
    }

    fn made() -> Op {
        Op::Create(pb::CreateOp::default())
    }

    /// How long the sender waited, and for how many.
    async fn lingered(journal: &Journal) -> (Duration, usize) {
        let began = Instant::now();
        let entries = journal.next_entries().await;
        (began.elapsed(), entries.len())
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_with_nothing_new_waits_for_others_to_go_with() {
        let journal = Journal::new().unwrap();
        push(&journal, closed());
        let (alone, count) = lingered(&journal).await;
        assert!(alone >= limits::JOURNAL_LAZY && count == 1, "{alone:?}");

        push(&journal, closed());
        push(&journal, made());
        let (with_another, count) = lingered(&journal).await;
        assert!(with_another < limits::JOURNAL_LAZY / 5 && count == 2, "{with_another:?}");

        push(&journal, closed());
        let later = async {
            tokio::time::sleep(limits::JOURNAL_LAZY / 5).await;
            push(&journal, made());
        };
        let ((joined, count), ()) = tokio::join!(lingered(&journal), later);
        assert!(joined < limits::JOURNAL_LAZY / 2 && count == 2, "{joined:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_close_has_it_sent_at_once() {
        let journal = Journal::new().unwrap();
        push(&journal, closed());
        let settling = async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            // Nobody answers here.
            assert!(journal.settle(1, std::time::Instant::now()).await.is_err());
        };
        let ((waited, _), ()) = tokio::join!(lingered(&journal), settling);
        assert!(waited < limits::JOURNAL_LAZY / 5, "{waited:?}");
    }

    #[test]
    fn a_close_that_says_something_is_not_put_off() {
        let wrote = pb::CloseOp { wrote: true, ..Default::default() };
        let bytes = vec![pb::InlineWrite::default()];
        let writes = pb::CloseOp { inline_writes: bytes, ..Default::default() };
        for op in [Op::Close(wrote), Op::Close(writes), made()] {
            assert!(!entry(1, op).is_lazy());
        }
        assert!(entry(1, closed()).is_lazy());
    }
}
