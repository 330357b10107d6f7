//! Which other nodes this one reaches, as `ff2-storaged` finds out.

use ff2_proto::{ChunkId, NodeId, TargetId};

use super::{Asked, CALL_TIMEOUT, Storaged};
use crate::{
    message::{Answer, Call, ChunkCall},
    net::Place,
    world::Context,
};

impl Storaged {
    /// Probes the nodes of successors that are silent.
    pub(super) fn probe(&mut self, cx: &mut Context<'_>) {
        let running = self.running();
        let routing = &running.routing;
        let node_of = |target: u64| routing.targets.get(&TargetId(target)).map(|t| NodeId(t.node));
        let silent = running.targets.values().map(|target| target.report().silent_successor);
        let lives = |id: NodeId| routing.nodes.get(&id).is_some_and(|node| node.alive);
        running.cuts.suspect(silent.filter_map(node_of), lives);
        for node in running.cuts.due(cx.now) {
            let address = self.running().routing.address(node);
            let place: Option<Place> = address.and_then(|address| address.parse().ok());
            let asked = Asked::Probe { node };
            let Some(place) = place else { return self.conclude(cx, asked, Answer::Silence) };
            // Of a target that is nowhere.
            let (chain_version, chunk) = (0.into(), ChunkId::default());
            let call = ChunkCall::Query { chain_version, chunk };
            let call = Call::Chunk { target: TargetId(0), call };
            self.ask(cx, place, call, CALL_TIMEOUT, asked);
        }
    }

    pub(super) fn on_probed(&mut self, cx: &mut Context<'_>, node: NodeId, answer: &Answer) {
        let running = self.running();
        if running.cuts.probed(cx.now, node, !matches!(answer, Answer::Silence)) {
            running.heartbeat_at = cx.now;
        }
    }
}
