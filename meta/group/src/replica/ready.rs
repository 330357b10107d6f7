//! What raft wants done, in the order that makes it safe: messages that need nothing on disk, the
//! apply of what is committed, the sync of what is new, then messages that promise it.

use std::time::Duration;

use bytes::Bytes;
use ff2_meta_core::{Overlay, StateMachine};
use ff2_proto::{
    Status,
    marks::{Mark, reached},
    pb,
};
use prost011::Message as _;
use raft::eraftpb::{ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType};

use super::{Kind, Output, Replica, Stage, answer_all};
use crate::{
    limits, membership,
    membership::Membership,
    store::{Install, LogStore, StoreBatch},
};

impl<St: LogStore, S: StateMachine> Replica<St, S> {
    /// First part of a ready: messages that may leave before anything is written (a leader's own
    /// sync runs while its followers sync), and confirmed reads.
    pub fn take_ready(&mut self, now: Duration, out: &mut Vec<Output>) {
        assert_eq!(self.stage, Stage::Idle, "one ready at a time");
        self.observe(out);
        let mut ready = self.raw.ready();
        self.post(ready.take_messages(), out);
        for state in ready.take_read_states() {
            self.reads.confirm(&state.request_ctx, state.index);
        }
        self.ready = Some(ready);
        self.stage = Stage::Taken;
        self.finish_reads(now, out);
    }

    /// Second part: applies what is committed. Nothing here but a change of members waits for the disk:
    /// what is applied is in the log already, and a crash only repeats it.
    pub fn apply_ready(&mut self, now: Duration, out: &mut Vec<Output>) {
        assert_eq!(self.stage, Stage::Taken, "take_ready comes first");
        let ready = self.ready.as_mut().expect("taken");
        let entries = ready.take_committed_entries();
        self.apply(entries, None, out);
        self.stage = Stage::Applied;
        self.finish_reads(now, out);
    }

    /// Third part: writes new entries, votes and snapshots with one sync, and sends what depends on it.
    pub fn persist_ready(&mut self, now: Duration, out: &mut Vec<Output>) {
        assert_eq!(self.stage, Stage::Applied, "apply_ready comes first");
        let mut ready = self.ready.take().expect("taken");
        let mut batch = StoreBatch { entries: ready.take_entries(), ..Default::default() };
        let mut applied = self.applied();
        if !ready.snapshot().is_empty() {
            let install = self.finished_install(ready.snapshot());
            applied = install.index;
            batch.install = Some(install);
        }
        let installed = batch.install.is_some();
        if installed || ready.hs().is_some() {
            batch.hard = Some(self.hard_with(applied, ready.hs()));
        }
        if installed || batch.hard.is_some() || !batch.entries.is_empty() {
            self.raw.mut_store().write(batch, ready.must_sync());
        }
        if installed {
            reached(Mark::SnapshotInstalled);
            let machine = &mut self.machine;
            self.raw.store().with_state(|kv| machine.restore(kv));
            self.notice_removal(out);
            out.push(Output::Applied);
        }
        self.post(ready.take_persisted_messages(), out);
        let mut light = self.raw.advance_append(ready);
        self.post(light.take_messages(), out);
        self.apply(light.take_committed_entries(), light.commit_index(), out);
        self.raw.advance_apply();
        self.stage = Stage::Idle;
        self.observe(out);
        self.finish_reads(now, out);
        #[cfg(debug_assertions)]
        self.check();
    }

    /// Panics if this replica is in a state that it must never be in. Run after every ready in debug.
    pub fn check(&self) {
        let raft = &self.raw.raft;
        let store = self.raw.store();
        assert_eq!(store.applied(), raft.raft_log.applied, "raft and the disk agree on applied");
        assert!(store.hard().commit >= store.applied(), "commit is on disk with applied");
        assert!(raft.raft_log.committed >= store.applied(), "only committed entries are applied");
        assert!(store.hard().term <= raft.term, "terms only grow");
        assert!(self.waiting.is_empty() || self.leading.is_some(), "only leaders have proposals");
        if self.lease_until().is_some() {
            assert_ne!(self.transfer_term, self.leading, "no lease after a transfer began");
        }
        let conf = store.conf();
        for id in conf.voters.iter().chain(&conf.learners) {
            assert!(store.membership().members.contains_key(id), "every member has an address");
        }
    }

    /// Applies committed entries and writes their effects, without a sync unless members changed.
    fn apply(&mut self, entries: Vec<Entry>, commit: Option<u64>, out: &mut Vec<Output>) {
        let Some(last) = entries.last().map(|entry| entry.index) else {
            if let Some(commit) = commit {
                let hard = Some(self.hard_with(commit, None));
                self.raw.mut_store().write(StoreBatch { hard, ..Default::default() }, false);
            }
            return;
        };
        let applied = self.applied();
        assert_eq!(entries[0].index, applied + 1, "entries are applied in order, once");
        let (entries, changes) = split_changes(entries);
        let mut batch = StoreBatch { applied: Some(last), ..Default::default() };
        batch.hard = Some(self.hard_with(last.max(commit.unwrap_or(0)), None));
        let mut answers = Vec::new();
        let ran = self.run_commands(entries, &mut batch, &mut answers);
        for entry in changes {
            self.run_change(&entry, &mut batch, &mut answers);
        }
        // Votes are counted by the configuration that is applied. One that a crash takes back needs votes
        // of members that may be gone for good by then, because they were seen to be no members any more.
        let reconfigured = batch.conf.is_some();
        self.raw.mut_store().write(batch, reconfigured);
        if ran {
            // The view first: whoever sees the answer finds its effect in the view.
            out.push(Output::Applied);
        }
        out.append(&mut answers);
        if reconfigured {
            self.reads.drop_lease();
            self.notice_removal(out);
        }
    }

    /// Returns whether any command ran.
    fn run_commands(
        &mut self,
        entries: Vec<Entry>,
        batch: &mut StoreBatch,
        answers: &mut Vec<Output>,
    ) -> bool {
        let Self { machine, waiting, raw, .. } = self;
        let mut ran = false;
        batch.changes = raw.store().with_state(|kv| {
            let mut overlay = Overlay::new(kv);
            for entry in entries {
                let (index, term) = (entry.index, entry.term);
                let mut replies = Vec::new();
                for command in crate::commands::unpack(entry.data) {
                    ran = true;
                    replies.push(machine.apply(index, &command, &mut overlay));
                }
                let Some(waiting) = waiting.remove(&index) else { continue };
                if waiting.term == term && waiting.kind == Kind::Commands {
                    assert_eq!(replies.len(), waiting.tickets.len(), "one answer each");
                    let pairs = waiting.tickets.into_iter().zip(replies);
                    let answered = |(ticket, answer)| Output::Answer { ticket, answer: Ok(answer) };
                    answers.extend(pairs.map(answered));
                } else {
                    // raft-rs turns a configuration change that it refuses into an empty entry.
                    let status = Status::new(pb::Code::Busy, "another change was under way");
                    answer_all(waiting, &status, answers);
                }
            }
            overlay.into_changes()
        });
        ran
    }

    fn run_change(&mut self, entry: &Entry, batch: &mut StoreBatch, answers: &mut Vec<Output>) {
        let done = match self.try_change(entry, batch) {
            Ok((conf, membership)) => {
                tracing::info!(group = %self.config.group, ?conf, "membership changed");
                batch.conf = Some(conf);
                batch.membership = Some(membership);
                Ok(())
            }
            Err(reason) => {
                tracing::warn!(group = %self.config.group, index = entry.index, reason,
                    "a membership change was refused");
                Err(Status::new(pb::Code::InvalidArgument, reason))
            }
        };
        if let Some(waiting) = self.waiting.remove(&entry.index) {
            let done = if waiting.term == entry.term { done } else { Err(unknown()) };
            let tickets = waiting.tickets.into_iter();
            answers.extend(tickets.map(|ticket| Output::Done { ticket, done: done.clone() }));
        }
    }

    fn try_change(
        &mut self,
        entry: &Entry,
        batch: &StoreBatch,
    ) -> Result<(ConfState, Membership), String> {
        if entry.get_entry_type() != EntryType::EntryConfChangeV2 {
            return Err("an old kind of configuration change".into());
        }
        let change = ConfChangeV2::decode(entry.data.as_slice()).map_err(|e| e.to_string())?;
        let membership = batch.membership.as_ref().unwrap_or(self.raw.store().membership());
        let Some(next) = membership.changed(&change) else {
            return Err("its raft id was given before, or is unknown".into());
        };
        // Until a joint configuration is left, messages to those that leave still need an address.
        for (id, member) in &membership.members {
            if !next.members.contains_key(id) && self.hints.len() < limits::HINTS_MAX {
                self.hints.entry(*id).or_insert_with(|| member.address.clone());
            }
        }
        let conf = self.raw.apply_conf_change(&change).map_err(|e| e.to_string())?;
        Ok((conf, next))
    }

    fn notice_removal(&mut self, out: &mut Vec<Output>) {
        let conf = self.raw.store().conf();
        if !self.over && !membership::contains(conf, self.raw.raft.id) {
            reached(Mark::Removed);
            self.over = true;
            out.push(Output::Removed);
        }
    }

    /// The place of the snapshot whose pages are all in the spare state.
    fn finished_install(&mut self, snapshot: &raft::eraftpb::Snapshot) -> Install {
        let fetched = self.fetching.take().expect("raft was given the message after its pages");
        let metadata = snapshot.get_metadata();
        assert_eq!(fetched.manifest.index, metadata.index, "the pages are of this snapshot");
        Install {
            index: metadata.index,
            term: metadata.term,
            conf: metadata.get_conf_state().clone(),
            membership: Membership::from_manifest(&fetched.manifest),
        }
    }

    /// Sends raft's messages, those to one peer together.
    pub(super) fn post(&mut self, messages: Vec<Message>, out: &mut Vec<Output>) {
        if messages.is_empty() {
            return;
        }
        // In order of the first message to each peer, without a map: there are few peers.
        let mut peers: Vec<(u64, Vec<Bytes>, usize)> = Vec::new();
        let mut full = Vec::new();
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.sending_snapshot(&message);
            }
            let bytes = Bytes::from(message.encode_to_vec());
            let place = peers.iter().position(|(to, ..)| *to == message.to);
            let place = place.unwrap_or_else(|| {
                peers.push((message.to, Vec::new(), 0));
                peers.len() - 1
            });
            let (to, queue, size) = &mut peers[place];
            if *size > 0 && *size + bytes.len() > limits::BATCH_SEND_BYTES_MAX {
                full.push((*to, std::mem::take(queue)));
                *size = 0;
            }
            *size += bytes.len();
            queue.push(bytes);
        }
        let from = self.own_member();
        let rest = peers.into_iter().map(|(to, queue, _)| (to, queue));
        for (to, messages) in full.into_iter().chain(rest) {
            let Some(address) = self.address_of(to) else {
                tracing::debug!(group = %self.config.group, to, "no address known");
                continue;
            };
            let group = self.config.group.0;
            let batch = pb::RaftBatch { group, messages, from: Some(from.clone()) };
            out.push(Output::Send { address, batch });
        }
    }
}

/// Commands and configuration changes, each in order. They do not see each other.
fn split_changes(entries: Vec<Entry>) -> (Vec<Entry>, Vec<Entry>) {
    entries.into_iter().partition(|entry| entry.entry_type == EntryType::EntryNormal as i32)
}

fn unknown() -> Status {
    Status::new(pb::Code::UnknownOutcome, "another leader's entry took its place")
}
