//! A look at every chunk on every replica, when the load is over: what a disk damaged is found then at the
//! latest, and repaired, and what every replica returns is part of the history.

use std::{collections::VecDeque, time::Duration};

use ff2_proto::{ChunkId, Routing, pb, routing::ChainExt};

use crate::{
    chunk_client::{all_chunks, chain_of},
    snapshots,
};

#[derive(Debug, Default)]
pub(crate) struct Audit {
    left: Option<VecDeque<(ChunkId, u64)>>,
    /// Another pass is needed.
    dirty: bool,
    over: bool,
}

impl Audit {
    /// A whole pass found nothing.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// What to look at: a chunk, and a target that must return it. `None`: all is looked at, or not every
    /// member serves yet.
    pub(crate) fn next(&mut self, now: Duration, routing: &Routing) -> Option<(ChunkId, u64)> {
        if self.left.is_none() {
            let mut members = routing.chains.values().flat_map(|chain| &chain.members);
            if members.any(|member| member.state() != pb::PublicState::Serving) {
                return None;
            }
            let targets =
                |chunk| chain_of(routing, chunk).serving().map(move |m| (chunk, m.target));
            let past = snapshots::readable(routing);
            let with_past = |chunk: ChunkId| {
                let at = past.iter().map(move |&snapshot| chunk.at(snapshot));
                std::iter::once(chunk).chain(at)
            };
            self.left = Some(all_chunks(now).flat_map(with_past).flat_map(targets).collect());
        }
        let next = self.left.as_mut().and_then(VecDeque::pop_front);
        if next.is_none() {
            self.over = !self.dirty;
            (self.dirty, self.left) = (false, None);
        }
        next
    }

    /// Another pass is needed: of damage that was found, or because a target moved.
    pub(crate) fn again(&mut self) {
        self.dirty = true;
    }
}
