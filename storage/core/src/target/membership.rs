//! What a new chain version, or the loss of the disk, does to everything in progress.

use ff2_proto::{
    ChainVersion, ChunkId, Code, Status,
    marks::{Mark, reached},
    pb,
    routing::ChainExt,
};
use pb::{LocalState, PublicState};

use super::{
    Now, Outputs, Target,
    event::{Output, Reply},
    live::{Ask, AskKind, Hop, WaitingUpdate},
    retired,
    types::{CallId, Report, Role},
};
use crate::{limits, resync::Resync};

impl<P: Clone> Target<P> {
    /// Takes in a newer chain.
    ///
    /// Pending updates stay and are sent again to whoever is behind now: under the new version every
    /// member must answer for them anew. Callers that count on the old version are told the new one.
    pub(super) fn on_chain(&mut self, now: Now, chain: pb::Chain, out: &mut Outputs<P>) {
        if chain.version <= self.chain.version || chain.id != self.chain.id {
            return;
        }
        self.chain = chain;
        self.complete_under = None;
        self.successor_silent = None;
        self.set_role();
        self.start_source();
        let chunks: Vec<ChunkId> = self.live.keys().copied().collect();
        for &chunk in &chunks {
            self.refuse_waiting(chunk, out);
            self.carry_over(chunk, out);
        }
        for &chunk in &chunks {
            self.aim(now, chunk, out);
            self.progress(now, chunk, out);
        }
        self.run_source(now, out);
        out.push(Output::Changed);
    }

    /// The role that it would have in this chain.
    pub fn role_in(&self, chain: &pb::Chain) -> Role {
        let state = chain.member(self.id).map(pb::ChainMember::state);
        let is_fresh = ChainVersion(chain.version) > self.serve_after;
        match state {
            _ if self.failed.is_some() => Role::Out,
            Some(PublicState::Serving) if is_fresh => {
                let head = chain.head().is_some_and(|head| head.target == self.id.0);
                Role::Serving { head }
            }
            Some(PublicState::Syncing) if is_fresh => Role::Syncing,
            Some(
                PublicState::Serving
                | PublicState::Syncing
                | PublicState::Lastsrv
                | PublicState::Waiting
                | PublicState::Offline
                | PublicState::PublicUnknown,
            )
            | None => Role::Out,
        }
    }

    fn set_role(&mut self) {
        let served = self.role.serves();
        self.role = self.role_in(&self.chain);
        if self.role.serves() && !served {
            self.serving_since = self.version();
        }
        if self.role != Role::Syncing {
            (self.sync_done_chunks, self.sync_total_chunks) = (0, 0);
        }
    }

    /// A serving target brings a syncing successor up to date.
    fn start_source(&mut self) {
        let successor = self.chain.successor(self.id).copied();
        self.source = successor
            .filter(|to| self.role.serves() && to.state() == PublicState::Syncing)
            .map(|to| {
                let total = self.records.len() as u64;
                Resync::new(to, self.version(), total, self.sync_bytes_per_s)
            });
    }

    /// Updates that were not begun: their senders ask the present head.
    fn refuse_waiting(&mut self, chunk: ChunkId, out: &mut Outputs<P>) {
        let status = self.stale("the chain changed");
        let live = self.live.get_mut(&chunk).expect("a key of the map");
        let waiting = std::mem::take(&mut live.waiting);
        self.waiting_updates -= waiting.len();
        for call in waiting.into_iter().flat_map(|WaitingUpdate { calls, .. }| calls) {
            out.push(Output::Reply { call, reply: Reply::Update(Err(status.clone())) });
        }
        // A question was asked under the old version; a read may go on if this target still serves.
        let serves = self.role.serves();
        self.refuse_asks(chunk, &status, |ask| !serves || ask.kind == AskKind::Query, out);
    }

    /// What is pending on a chunk goes on under the new version.
    fn carry_over(&mut self, chunk: ChunkId, out: &mut Outputs<P>) {
        let status = self.stale("the chain changed");
        let is_head = self.role.is_head();
        let live = self.live.get_mut(&chunk).expect("a key of the map");
        live.query = None;
        let Some(pending) = &mut live.pending else { return };
        if pending.resync {
            // The copy belonged to a sync that is over; the next one looks at the chunk anew.
            self.drop_pending(chunk, status, out);
            return;
        }
        pending.inherited = true;
        pending.hop = Hop::Idle;
        pending.sent = false;
        pending.pause = limits::FORWARD_RETRY_FIRST;
        pending.last_failure = None;
        let callers = std::mem::take(&mut pending.callers);
        // The head still answers its clients; predecessors ask again under the new version.
        let (stay, go) = callers.into_iter().partition(|caller| is_head && caller.client);
        pending.callers = stay;
        for caller in go {
            let reply = Reply::Update(Err(status.clone()));
            out.push(Output::Reply { call: caller.call, reply });
        }
    }

    /// The disk is lost, or full while this target syncs, or a chunk of it needs repair: the target
    /// answers nobody and takes nothing until its store is loaded anew.
    pub(super) fn fail(&mut self, status: Status, out: &mut Outputs<P>) {
        if self.failed.is_some() {
            return;
        }
        self.failed = Some(status.clone());
        self.role = Role::Out;
        self.source = None;
        self.complete_under = None;
        let refusal = Status::new(Code::NotServing, format!("the target failed: {status}"));
        let chunks: Vec<ChunkId> = self.live.keys().copied().collect();
        for chunk in chunks {
            self.refuse_waiting(chunk, out);
            self.answer_callers(chunk, Err(refusal.clone()), out);
            if let Some(live) = self.live.get_mut(&chunk) {
                live.store.clear_queue();
                live.query = None;
            }
        }
        out.push(Output::Changed);
    }

    /// Begins or ends the retirement. Who waits for a read is sent to another member.
    pub(super) fn retire(&mut self, number: u64, out: &mut Outputs<P>) {
        if self.retired == number {
            return;
        }
        reached(if number == 0 { Mark::MemberStays } else { Mark::MemberRetires });
        self.retired = number;
        if number != 0 {
            let chunks: Vec<ChunkId> = self.live.keys().copied().collect();
            for chunk in chunks {
                self.refuse_asks(chunk, &retired(), |ask| ask.kind != AskKind::Query, out);
            }
        }
        out.push(Output::Changed);
    }

    /// Sends away the asks that `which` names.
    pub(super) fn refuse_asks(
        &mut self,
        chunk: ChunkId,
        status: &Status,
        which: impl Fn(&Ask) -> bool,
        out: &mut Outputs<P>,
    ) {
        let Some(live) = self.live.get_mut(&chunk) else { return };
        let asks = std::mem::take(&mut live.asks);
        let (go, stay): (Vec<Ask>, Vec<Ask>) = asks.into_iter().partition(which);
        live.asks = stay.into();
        self.waiting_reads -= go.len();
        for ask in go {
            let reply = refusal(ask.kind, status.clone());
            out.push(Output::Reply { call: ask.call, reply });
        }
    }

    /// What this target says of itself in a heartbeat.
    pub fn report(&self) -> Report {
        let mut report = Report {
            local_state: LocalState::Online,
            chain_version: self.chain.version,
            sync_done_chunks: self.sync_done_chunks,
            sync_total_chunks: self.sync_total_chunks,
            waiting_for: String::new(),
            retired: self.retired,
            silent_successor: self.silent_successor(),
        };
        if let Some(status) = &self.failed {
            report.local_state = LocalState::LocalOffline;
            let what = match status.code {
                Code::NoSpace => "space",
                Code::Corrupt => "a resync",
                _ => "a restart",
            };
            report.waiting_for = format!("{what}, after: {status}");
        } else if self.role.serves() || self.is_complete() {
            report.local_state = LocalState::UpToDate;
        } else if self.version() <= self.serve_after {
            // It restarted under this version and takes no part in it.
            report.chain_version = 0;
            report.waiting_for = "a chain version made after the restart".into();
        }
        if let Some(source) = self.source.as_ref().filter(|source| !source.is_done()) {
            (report.sync_done_chunks, report.sync_total_chunks) = source.progress();
            report.waiting_for = source.explain();
        } else if self.role == Role::Syncing && !self.is_complete() {
            report.waiting_for = "the resync from its predecessor".into();
        }
        report
    }

    fn silent_successor(&self) -> u64 {
        let silence =
            self.successor_silent.filter(|silence| silence.lasted >= limits::SUCCESSOR_SILENT);
        let successor = silence.and_then(|_| self.chain.successor(self.id));
        successor.map_or(0, |successor| successor.target)
    }

    fn is_complete(&self) -> bool {
        self.role == Role::Syncing && self.complete_under == Some(self.version())
    }

    pub(super) fn set_complete(&mut self, version: ChainVersion) {
        assert_eq!(version, self.version(), "complete as of the present chain version only");
        self.complete_under = Some(version);
    }
}

pub(super) fn refusal(kind: AskKind, status: Status) -> Reply {
    match kind {
        AskKind::Read { .. } => Reply::Read(Err(status)),
        AskKind::Query => Reply::Query(Err(status)),
    }
}

pub(super) fn reply_read<P>(
    call: CallId,
    result: Result<super::types::ReadAnswer, Status>,
    out: &mut Outputs<P>,
) {
    out.push(Output::Reply { call, reply: Reply::Read(result) });
}
