//! What the leader of group 0 has moved: by itself, or because a person asks for it.

use ff2_meta_core::cluster::Space;
use ff2_proto::pb;
use pb::cluster_command::Fact;

use super::{Metad, millis};
use crate::{mutation::Mutation, world::Context};

impl Metad {
    /// What was away for too long, and where it comes to be instead.
    pub(super) fn made_anew(
        &mut self,
        cx: &Context<'_>,
        routing: &ff2_proto::Routing,
    ) -> Option<Fact> {
        let after_ms = self.spares_after_ms;
        if after_ms == 0 || self.mutation == Some(Mutation::Spares) {
            return None;
        }
        let spares = &mut self.running().spares;
        let taken = spares.tick(millis(cx.now), after_ms, routing, Space::default);
        taken.map(Fact::ReplaceTarget)
    }

    /// What a person asks for, or the next step of what is being moved.
    pub(super) fn moving(
        &mut self,
        cx: &Context<'_>,
        routing: &ff2_proto::Routing,
    ) -> Option<Fact> {
        if let Some(fact) = self.wishes.missing(routing) {
            return Some(fact);
        }
        let running = self.running.as_ref().expect("it runs");
        let (_, book) = running.book.as_ref()?;
        if let Some(fact) = self.snapshots.step(cx.world_now, routing, book) {
            return Some(fact);
        }
        if self.rebalanced < self.wishes.rebalances {
            self.rebalanced = self.wishes.rebalances;
            return Some(Fact::SetRebalancing(pb::SetRebalancing { on: true }));
        }
        if self.mutation == Some(Mutation::Unheard)
            && let Some(target) = routing.targets.values().find(|target| target.retired)
        {
            let chain_version = routing.chains.get(&target.chain.into())?.version;
            let fact = pb::TakeOutTarget { target: target.id, chain_version };
            return Some(Fact::TakeOutTarget(fact));
        }
        let running = self.running();
        let (_, book) = running.book.as_ref()?;
        running.moves.tick(millis(cx.now), routing, book)
    }
}
