//! Chunks whose bytes the disk did not give back as they were written.
//!
//! One bad sector is no reason to give up a replica: the chunk is *suspect*, all others are served.
//! It is good again once a change that does not build on its content (a replacement, a removal) is
//! committed. Who brings that change:
//! - to a member behind the head, whoever precedes it: an update that the suspect chunk cannot take
//!   is answered as if its base were missing, which has the whole chunk sent;
//! - to the head, and to a member that merely read the chunk, a resync: the target leaves the chain
//!   while another member serves, comes back, and shows the suspect chunk as of version 0.
//!
//! A target that nobody can stand in for stays: the one chunk cannot be read, everything else can.

use ff2_proto::{
    ChunkId, ChunkVersion, Code, Status,
    marks::{Mark, reached},
    routing::ChainExt,
};

use super::{
    Outputs, Target,
    event::{Output, Reply},
    types::UpdateId,
};

impl<P: Clone> Target<P> {
    /// What this target knows to be damaged, for the machine that takes its place.
    pub fn suspects(&self) -> impl Iterator<Item = ChunkId> + '_ {
        self.suspects.iter().copied()
    }

    /// Takes over what an earlier machine of this store found to be damaged.
    #[must_use]
    pub fn with_suspects(mut self, suspects: impl IntoIterator<Item = ChunkId>) -> Self {
        self.suspects.extend(suspects);
        self
    }

    /// The bytes of a committed chunk cannot be read. Leaves the chain for repair if others serve.
    pub(super) fn on_unreadable(&mut self, chunk: ChunkId, status: &Status, out: &mut Outputs<P>) {
        if !self.records.contains_key(&chunk) {
            return;
        }
        self.suspects.insert(chunk);
        if self.role.serves() && self.others_serve() {
            reached(Mark::DamagedLeaves);
            self.fail(Status { code: Code::Corrupt, ..status.clone() }, out);
        } else {
            reached(Mark::DamagedStays);
        }
    }

    /// A prepare needed old bytes of the chunk and did not get them.
    pub(super) fn on_unreadable_base(
        &mut self,
        chunk: ChunkId,
        id: UpdateId,
        status: Status,
        out: &mut Outputs<P>,
    ) {
        reached(Mark::BaseDamaged);
        if self.role.is_head() {
            self.on_unreadable(chunk, &status, out);
            if self.failed.is_none() && self.pending_mut(chunk, id).is_some() {
                self.refuse(chunk, status, out);
            }
            return;
        }
        self.suspects.insert(chunk);
        // Not dropped: the same update is taken when it comes with the whole chunk.
        let live = self.live.get_mut(&chunk);
        let pending = live.and_then(|live| live.pending.take_if(|pending| pending.id == id));
        for caller in pending.into_iter().flat_map(|pending| pending.callers) {
            let detail = format!("the base cannot be read: {status}");
            let reply = Reply::Update(Err(Status::new(Code::MissingUpdate, detail)));
            out.push(Output::Reply { call: caller.call, reply });
        }
    }

    /// The committed update of a chunk as a resync sees it.
    pub(super) fn shown(&self, chunk: ChunkId) -> Option<UpdateId> {
        let id = self.records.get(&chunk)?.id;
        let is_suspect = self.suspects.contains(&chunk);
        Some(if is_suspect { UpdateId { version: ChunkVersion(0), ..id } } else { id })
    }

    fn others_serve(&self) -> bool {
        self.chain.serving().any(|member| member.target != self.id.0)
    }
}
