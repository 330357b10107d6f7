//! The cluster machine: nodes, disks, targets, chains, tables, volumes, users and tokens.
//!
//! Group 0 replicates it. Its leader stamps facts (a node joined, these died together, a report
//! changed) into [`pb::ClusterCommand`]s; applying one changes the routing, and every changed object
//! carries the routing version that it changed at, so that [`delta`] can tell anyone what is new.
//! All chain states come from one function, [`next_chain`]. It never sees heartbeats: those live in
//! the leader's [`LeaseBook`], which turns them into facts.
//!
//! The machine keeps a mirror of its keys in memory ([`Routing`], handed out as its view); users are
//! read from the keys ([`users`], [`user`]).

mod chain;
mod delta;
mod destination;
mod edit;
mod facts;
mod identity;
mod judge;
mod lease;
mod leave;
pub mod limits;
mod moves;
mod place;
mod rebalance;
mod recall;
mod records;
mod restore;
mod space;
mod spares;

use std::sync::Arc;

use bytes::Bytes;
use ff2_proto::{Routing, Status, pb, status::Code};
use prost::Message;

use crate::{
    kv::{Kv, KvRead},
    machine::StateMachine,
};
use edit::Edit;

pub use chain::{NEWBORN_VERSION, Observation, next_chain};
pub use delta::delta;
pub use lease::{Heard, JoinTurn, LeaseBook, LeaseTimes, NodeVitals};
pub use moves::{Moves, stuck};
pub use place::{
    Evenness, Leaves, PlaceError, PlaceableDisk, default_chains, evenness, place, placeable_disks,
};
pub use rebalance::plan as plan_rebalance;
pub use recall::why_not_served;
pub use records::{bootstrap, user, users};
pub use restore::{RestoreTimes, restore};
pub use space::Space;
pub use spares::Spares;

/// State of group 0.
#[derive(Debug, Default)]
pub struct ClusterMachine {
    routing: Arc<Routing>,
    record: pb::ClusterRecord,
}

impl ClusterMachine {
    pub fn new() -> Self {
        Self::default()
    }

    fn execute(
        &mut self,
        command: pb::ClusterCommand,
        kv: &mut dyn Kv,
    ) -> Result<pb::ClusterReply, Status> {
        crate::machine::assert_known(command.level);
        let Some(fact) = command.fact else {
            return Err(Status::new(Code::InvalidArgument, "a command without a fact"));
        };
        let mut edit = Edit::new(&mut self.routing, &mut self.record);
        let answer = facts::apply(fact, &mut edit, kv);
        // A fact that is refused must not have changed anything: facts check first, then change.
        debug_assert!(answer.is_ok() || !edit.is_changed(), "a refused fact changed the state");
        edit.store(kv);
        answer
    }

    /// What must hold after every command.
    pub fn check(&self) {
        judge::check(&self.routing);
        assert_eq!(self.routing.version.0, self.record.routing_version);
    }
}

impl StateMachine for ClusterMachine {
    type View = Arc<Routing>;

    fn restore(&mut self, kv: &dyn KvRead) {
        let (routing, record) = records::load(kv);
        self.routing = Arc::new(routing);
        self.record = record;
    }

    fn apply(&mut self, _index: u64, command: &[u8], kv: &mut dyn Kv) -> Bytes {
        let answer = pb::ClusterCommand::decode(command)
            .map_err(|error| Status::new(Code::InvalidArgument, format!("undecodable: {error}")))
            .and_then(|command| self.execute(command, kv));
        let mut reply = match answer {
            Ok(reply) => reply,
            Err(status) => pb::ClusterReply { status: Some(status.into()), ..Default::default() },
        };
        reply.routing_version = self.routing.version.0;
        if cfg!(debug_assertions) {
            self.check();
        }
        Bytes::from(reply.encode_to_vec())
    }

    fn view(&self) -> Arc<Routing> {
        Arc::clone(&self.routing)
    }
}

#[cfg(test)]
mod tests;
