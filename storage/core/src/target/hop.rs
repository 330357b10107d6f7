//! The way of a pending update to the successor, until it is answered or the chain changes.

use std::time::Duration;

use ff2_proto::{
    ChunkId, Code, Status,
    marks::{Mark, reached},
    pb,
    routing::ChainExt,
};
use pb::PublicState;

use super::{
    Now, Outputs, Target,
    event::Output,
    live::{Body, Hop, Pending, Silence},
    longer,
    types::{Attempt, Change, Forward, FullCopy},
};

use crate::cuts::is_silence;

impl<P: Clone> Target<P> {
    /// Sends the pending update to whoever is the successor now.
    pub(super) fn aim(&mut self, now: Now, chunk: ChunkId, out: &mut Outputs<P>) {
        let successor = self.successor_state();
        let takes_updates = self.role.takes_updates();
        let Some(pending) = self.live.get(&chunk).and_then(|live| live.pending.as_ref()) else {
            return;
        };
        if pending.resync {
            self.set_hop(chunk, Hop::Last);
            return;
        }
        let hop = match successor {
            _ if !takes_updates => Some(Hop::Idle),
            None => Some(Hop::Last),
            Some(_) => None,
        };
        if let Some(hop) = hop {
            if hop == Hop::Last && pending.inherited {
                reached(Mark::LastSettles);
            }
            self.set_hop(chunk, hop);
            return;
        }
        let full = self.must_go_whole(chunk, pending, successor == Some(PublicState::Syncing));
        self.send(now, chunk, full, out);
    }

    /// A syncing successor probably lacks the base, and what was found on the disk has no payload at
    /// hand: the whole chunk goes.
    fn must_go_whole(&self, chunk: ChunkId, pending: &Pending<P>, to_syncing: bool) -> bool {
        match &pending.body {
            Body::OnDisk { removes } => !removes,
            Body::Change(change) => {
                let is_synced = || {
                    let record = self.records.get(&chunk);
                    record.is_some_and(|record| record.synced_under == self.version())
                };
                to_syncing && change.needs_base() && pending.base.is_some() && !is_synced()
            }
        }
    }

    fn send(&mut self, now: Now, chunk: ChunkId, full: bool, out: &mut Outputs<P>) {
        let Some(to) = self.chain.successor(self.id).copied() else { return };
        let attempt = self.next_attempt();
        let (from, chain_version) = (self.id, self.version());
        let live = self.live.get_mut(&chunk).expect("there is an update to send");
        let pending = live.pending.as_mut().expect("there is an update to send");
        let is_whole = matches!(&pending.body, Body::Change(Change::Replace { .. }));
        let is_in_store = matches!(&pending.body, Body::OnDisk { removes: false });
        let full = (full || is_in_store) && !is_whole;
        if full && !pending.persisted {
            pending.hop = Hop::AwaitPersist;
            return;
        }
        pending.hop = Hop::Sent { attempt, full };
        pending.sent = true;
        pending.since = now.at;
        let copy = FullCopy {
            chain_version,
            from,
            to: to.target.into(),
            chunk,
            id: pending.id,
            base: pending.base,
            length: pending.length,
            chunk_size: pending.chunk_size,
            tag: pending.tag,
            tags: pending.tags.clone(),
            keeping: pending.keeping,
            resync: false,
        };
        let change = match &pending.body {
            Body::Change(change) if !full => change.clone(),
            Body::OnDisk { removes: true } => Change::Remove,
            Body::Change(_) | Body::OnDisk { removes: false } => {
                reached(Mark::WholeSent);
                out.push(Output::ForwardFull { to, attempt, copy });
                return;
            }
        };
        out.push(Output::Forward { to, attempt, forward: with_change(copy, change) });
    }

    pub(super) fn on_forwarded(
        &mut self,
        now: Now,
        chunk: ChunkId,
        attempt: Attempt,
        result: Result<(), Status>,
        out: &mut Outputs<P>,
    ) {
        let Some(full) = self.awaited(chunk, attempt) else { return };
        self.note_silence(now, chunk, &result);
        match result {
            Ok(()) => self.set_hop(chunk, Hop::Done),
            Err(status) => self.on_forward_failed(now, chunk, full, status, out),
        }
        self.progress(now, chunk, out);
    }

    fn note_silence(&mut self, now: Now, chunk: ChunkId, result: &Result<(), Status>) {
        let pending = self.live.get(&chunk).and_then(|live| live.pending.as_ref());
        let sent = pending.map_or(now.at, |pending| pending.since);
        self.note_answer(now, sent, result);
    }

    /// What the successor answered to something that was `sent` then, or that it did not.
    pub(super) fn note_answer<T>(&mut self, now: Now, sent: Duration, result: &Result<T, Status>) {
        if !result.as_ref().is_err_and(is_silence) {
            self.successor_silent = None;
            return;
        }
        let since = self.successor_silent.map_or(sent, |silence| silence.since);
        self.successor_silent = Some(Silence { since, lasted: now.at.saturating_sub(since) });
    }

    /// Whether this is the try that is waited for; if so, whether the whole chunk was sent.
    fn awaited(&self, chunk: ChunkId, attempt: Attempt) -> Option<bool> {
        let pending = self.live.get(&chunk)?.pending.as_ref()?;
        match pending.hop {
            Hop::Sent { attempt: sent, full } if sent == attempt => Some(full),
            Hop::Sent { .. }
            | Hop::Idle
            | Hop::Last
            | Hop::AwaitPersist
            | Hop::Retry { .. }
            | Hop::Done => None,
        }
    }

    fn on_forward_failed(
        &mut self,
        now: Now,
        chunk: ChunkId,
        full: bool,
        status: Status,
        out: &mut Outputs<P>,
    ) {
        if let Some(chain) = status.chain.as_deref()
            && chain.version > self.chain.version
        {
            self.on_chain(now, chain.clone(), out);
            return;
        }
        if status.code == Code::MissingUpdate && !full {
            self.send(now, chunk, true, out);
            return;
        }
        if full && status.code == Code::Corrupt {
            self.on_unsendable(now, chunk, status, out);
            return;
        }
        if self.is_refusal(chunk, &status) {
            self.refuse(chunk, status, out);
            return;
        }
        // A successor without memory may wait for ours.
        let is_congested = matches!(status.code, Code::Busy | Code::Timeout);
        self.send_later(now, chunk, full, status);
        let pending = self.live.get_mut(&chunk).and_then(|live| live.pending.as_mut());
        if let Some(pending) = pending.filter(|pending| is_congested && pending.persisted) {
            pending.let_go_payload();
        }
    }

    fn send_later(&mut self, now: Now, chunk: ChunkId, full: bool, why: Status) {
        let live = self.live.get_mut(&chunk).expect("checked by the caller");
        let pending = live.pending.as_mut().expect("checked by the caller");
        pending.hop = Hop::Retry { at: now.at + pending.pause, full };
        pending.pause = longer(pending.pause);
        pending.last_failure = Some(why);
    }

    /// The whole chunk was to go and cannot be read here. If nobody can stand in for this target,
    /// an update that nobody has committed ends with the error; another one waits for the chain.
    fn on_unsendable(&mut self, now: Now, chunk: ChunkId, status: Status, out: &mut Outputs<P>) {
        self.on_unreadable(chunk, &status, out);
        let pending = self.live.get(&chunk).and_then(|live| live.pending.as_ref());
        match pending.filter(|_| self.failed.is_none()) {
            Some(pending) if !pending.inherited => self.refuse(chunk, status, out),
            Some(_) => self.send_later(now, chunk, true, status),
            None => {}
        }
    }

    /// Whether the successor's answer ends the update rather than delays it.
    ///
    /// Only a member that looked at the update may end it, and these are the words it has for that.
    /// Whatever else goes wrong on the way (a key, a frame, the peer's process) says nothing of the
    /// update: it is sent again until the chain changes.
    ///
    /// An inherited update may have been committed by an earlier head. A serving successor that
    /// refuses it for want of room, or because it was dropped, proves that it was not: it would hold
    /// it. A syncing one proves nothing (it was no member then), nor does any other failure.
    fn is_refusal(&self, chunk: ChunkId, status: &Status) -> bool {
        let pending = self.live.get(&chunk).and_then(|live| live.pending.as_ref());
        if pending.is_some_and(|pending| pending.inherited) {
            return self.successor_state() == Some(PublicState::Serving)
                && matches!(status.code, Code::NoSpace | Code::StaleUpdate);
        }
        matches!(
            status.code,
            Code::NoSpace | Code::FileTooBig | Code::InvalidArgument | Code::StaleUpdate
        )
    }

    /// Sends what waited for its turn: a retry whose pause is over, a whole chunk that is durable now.
    pub(super) fn retry_hop(&mut self, now: Now, chunk: ChunkId, out: &mut Outputs<P>) {
        let Some(pending) = self.live.get(&chunk).and_then(|live| live.pending.as_ref()) else {
            return;
        };
        match pending.hop {
            Hop::Retry { at, full } if at <= now.at => self.send(now, chunk, full, out),
            Hop::AwaitPersist if pending.persisted => self.send(now, chunk, true, out),
            Hop::Retry { .. }
            | Hop::AwaitPersist
            | Hop::Idle
            | Hop::Last
            | Hop::Sent { .. }
            | Hop::Done => {}
        }
    }

    fn set_hop(&mut self, chunk: ChunkId, hop: Hop) {
        let pending = self.live.get_mut(&chunk).and_then(|live| live.pending.as_mut());
        pending.expect("there is an update on its way").hop = hop;
    }

    fn successor_state(&self) -> Option<PublicState> {
        self.chain.successor(self.id).map(pb::ChainMember::state)
    }
}

pub(super) fn with_change<P>(copy: FullCopy, change: Change<P>) -> Forward<P> {
    Forward {
        chain_version: copy.chain_version,
        from: copy.from,
        to: copy.to,
        chunk: copy.chunk,
        id: copy.id,
        base: copy.base,
        change,
        chunk_size: copy.chunk_size,
        tag: copy.tag,
        tags: copy.tags,
        keeping: copy.keeping,
        resync: copy.resync,
    }
}
