//! How long a chain waits for a storage node that dies, while nothing else is wrong.

use std::time::Duration;

use ff2_proto::{ChainId, pb, routing::ChainExt};

use crate::{
    clock::Clocks,
    metad::Metad,
    net::Place,
    rng::Rng,
    setting::Setting,
    storaged::Storaged,
    world::{STORAGEDS, World},
};

/// When the cluster works and is loaded; the death comes within a heartbeat interval after it.
const SETTLED: Duration = Duration::from_secs(8);
/// Nobody waits longer.
const GIVEN_UP: Duration = Duration::from_secs(30);

/// From the death on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// Every survivor of the dead node's chains knew a version of its chain without that node, and
    /// served under it.
    pub served: Duration,
    /// Everything that clients had begun before the death was answered.
    pub answered: Duration,
}

/// Crashes a storage node for good, and the leader of the cluster group with it if told so.
pub fn failover(seed: u64, with_leader: bool) -> Failover {
    let mut world = World::start(seed, Clocks::all_true(seed), Setting::default());
    let mut rng = Rng::new(seed, "failover");
    let at = SETTLED + Duration::from_micros(rng.within(0..1_000_000));
    world.net.calm();
    while world.now < at && world.turn() {}
    assert!(world.everything_serves(), "seed {seed}: the cluster is well before the death");
    let dead = *rng.pick(&STORAGEDS).expect("there are storage nodes");
    world.crash(dead, GIVEN_UP * 2);
    if with_leader {
        let leader = world.metads.iter().find(|metad| metad.leads()).map(|metad| metad.place);
        world.crash(leader.expect("a cluster that serves has a leader"), GIVEN_UP * 2);
    }
    let died = world.now;
    let (mut served, mut answered) = (None, None);
    while served.is_none() || answered.is_none() {
        assert!(world.turn() && world.now < died + GIVEN_UP, "seed {seed}: no failover");
        if served.is_none() && survivors_serve(&world, dead) {
            served = Some(world.now - died);
        }
        if answered.is_none() && all_answered(&world, died) {
            answered = Some(world.now - died);
        }
    }
    Failover {
        served: served.expect("the loop ends with both"),
        answered: answered.expect("the loop ends with both"),
    }
}

/// Every other member of the dead node's chains serves under a version without it.
fn survivors_serve(world: &World, dead: Place) -> bool {
    let Some(routing) = world.metads.iter().find_map(Metad::routing) else { return false };
    let node = world.storageds.iter().find(|s| s.place == dead).map(|dead| dead.node);
    let is_dead = |member: &pb::ChainMember| Some(member.node) == node;
    let serves = |id: u32, member: &pb::ChainMember| {
        let survivor = world.storageds.iter().find(|s| s.node == member.node);
        let known = survivor.and_then(Storaged::routing).and_then(|r| r.chains.get(&ChainId(id)));
        let without_it = known.is_some_and(|chain| {
            chain.serving().any(|m| m.target == member.target) && !chain.serving().any(is_dead)
        });
        without_it && survivor.is_some_and(|s| world.has_lease(s))
    };
    let chains = routing.chains.values().filter(|chain| chain.members.iter().any(is_dead));
    chains
        .flat_map(|chain| chain.members.iter().map(|member| (chain.id, member)))
        .filter(|(_, member)| !is_dead(member))
        .all(|(id, member)| serves(id, member))
}

fn all_answered(world: &World, died: Duration) -> bool {
    let chunks = world.chunk_clients.iter().flat_map(|client| &client.history);
    chunks
        .map(|done| &done.operation)
        .filter(|operation| operation.called < died)
        .all(|operation| operation.returned.is_some())
}
