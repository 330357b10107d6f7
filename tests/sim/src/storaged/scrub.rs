//! The scrub: reads all that is stored, one chunk at a time, by the way that clients' reads go.

use std::time::Duration;

use ff2_proto::{ChunkId, TargetId};
use ff2_storage_core::target::{CallId, Input};

use super::Storaged;
use crate::{mutation::Mutation, world::Context};

/// Between two chunks of a node: a round takes some seconds.
const PAUSE: Duration = Duration::from_millis(300);

/// Where the walk of a node is.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    behind: Option<(TargetId, ChunkId)>,
    next_at: Duration,
}

impl Storaged {
    /// Reads the next chunk, if it is time. What comes of it is the target's to see to.
    pub(super) fn scrub(&mut self, cx: &mut Context<'_>) {
        if !self.scrubs || cx.now < self.running().scrub.next_at {
            return;
        }
        let behind = self.running().scrub.behind;
        let targets = &self.running.as_ref().expect("it runs").targets;
        let here = self.disks.iter().filter(|(target, _)| targets.contains_key(target));
        let chunks = here.flat_map(|(target, disk)| disk.chunks().map(|chunk| (*target, chunk)));
        let next = chunks.filter(|next| behind.is_none_or(|behind| *next > behind)).min();
        let running = self.running();
        running.scrub.behind = next;
        running.scrub.next_at = cx.now + PAUSE;
        let Some((target, chunk)) = next.filter(|_| self.mutation != Some(Mutation::Scrub)) else {
            return;
        };
        let running = self.running();
        running.next_call += 1;
        let call = CallId(running.next_call);
        self.step(cx, target, Input::Read { call, chunk });
    }
}
