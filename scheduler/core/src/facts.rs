//! All that the machine knows, without what follows from it: what a snapshot has.

use std::collections::{BTreeMap, BTreeSet};

use ff2_topology::{NodeId, Topology};
use serde::{Deserialize, Serialize};

use crate::{
    cluster::NodeState,
    job::{Job, JobId, Outcome, Resources, Shape, State},
    ledger::{Accounts, Ledger},
    policy::Config,
    quota::QuotaKey,
    scheduler::{Claim, Reservation, Scheduler},
    share::{Share, Shares},
    tags::{TagSet, Tags},
};

/// For the topology that it was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    pub config: Config,
    pub now_ms: u64,
    pub next_job: u64,
    pub jobs: Vec<Job>,
    pub ended: Vec<(JobId, Outcome)>,
    claims: Vec<(JobId, Claim)>,
    /// Jobs that a quota holds, and which: they are let go when it has room.
    parked: Vec<(JobId, QuotaKey)>,
    /// Shapes that are not looked at before something is free again.
    blocked: BTreeSet<Shape>,
    pub quotas: Vec<(QuotaKey, u64)>,
    pub shares: BTreeMap<String, Share>,
    excess: BTreeMap<String, u32>,
    share_at_ms: u64,
    pub accounts: Accounts,
    pub caches: BTreeMap<String, BTreeSet<NodeId>>,
    spares_wanted: u32,
    plan_at_ms: u64,
    reserved: Option<Reservation>,
    #[serde(default)]
    calm_bytes_per_s: u64,
    /// Those that are not up, or spares.
    pub nodes: Vec<(NodeId, NodeState, bool)>,
    /// Cores and memory of those that have others than the configuration says.
    #[serde(default)]
    pub sizes: Vec<(NodeId, Resources)>,
    #[serde(default)]
    tags: Tags,
    /// Those that have any.
    #[serde(default)]
    tagged: Vec<(NodeId, TagSet)>,
}

/// The facts are of another network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the facts name {0:?}, which this network does not have or which does not compute")]
pub struct Foreign(pub NodeId);

impl Scheduler {
    pub fn facts(&self) -> Facts {
        let nodes = self
            .cluster
            .ids()
            .map(|node| (node, self.cluster.state(node), self.cluster.is_spare(node)));
        let sizes = self.cluster.ids().filter(|node| self.cluster.knows(*node));
        let sizes = sizes.map(|node| (node, self.cluster.capacity(node)));
        let usual = self.config.beside_gpus;
        let is_other = |size: &Resources| (size.cpus, size.memory) != (usual.cpus, usual.memory);
        let tagged = self.cluster.ids().map(|node| (node, self.cluster.tags(node)));
        Facts {
            config: self.config.clone(),
            now_ms: self.now,
            next_job: self.next_job,
            jobs: self.jobs.values().cloned().collect(),
            ended: self.ended.iter().map(|(id, outcome)| (*id, *outcome)).collect(),
            claims: self.claims.iter().map(|(id, claim)| (*id, claim.clone())).collect(),
            parked: self.queue.parked().map(|(id, key)| (id, key.clone())).collect(),
            blocked: self.blocked.clone(),
            quotas: self.quotas.iter().map(|(key, has)| (key.clone(), has.limit)).collect(),
            shares: self.shares.iter().map(|(group, share)| (group.clone(), *share)).collect(),
            excess: self.excess.clone(),
            share_at_ms: self.share_at,
            accounts: self.ledger.accounts.clone(),
            caches: self.caches.clone(),
            spares_wanted: self.spares_wanted,
            plan_at_ms: self.plan_at,
            reserved: self.reserved.clone(),
            sizes: sizes.filter(|(_, size)| is_other(size)).collect(),
            tags: self.tags.clone(),
            tagged: tagged.filter(|(_, tags)| *tags != TagSet::default()).collect(),
            calm_bytes_per_s: self.wheel.calm(),
            nodes: nodes.filter(|(_, state, spare)| *state != NodeState::Up || *spare).collect(),
        }
    }

    /// The machine with these facts: it decides from here on as the one that they are of.
    ///
    /// # Errors
    /// If the facts are of another network.
    pub fn restore(topology: &Topology, facts: Facts) -> Result<Self, Foreign> {
        let mut machine = Self::new(topology, facts.config);
        let placed = facts.jobs.iter().filter_map(Job::placement);
        let placed = placed.chain(facts.claims.iter().map(|(_, claim)| &claim.placement));
        let named = placed.flat_map(|placement| placement.nodes());
        let named = named.chain(facts.nodes.iter().map(|(node, ..)| *node));
        let named = named.chain(facts.sizes.iter().map(|(node, _)| *node));
        let named = named.chain(facts.tagged.iter().map(|(node, _)| *node));
        if let Some(unknown) = named.into_iter().find(|node| !machine.cluster.knows(*node)) {
            return Err(Foreign(unknown));
        }
        machine.now = facts.now_ms;
        machine.next_job = facts.next_job;
        machine.ended = facts.ended.into_iter().collect();
        machine.claims = facts.claims.into_iter().collect();
        machine.shares = Shares::restore(facts.shares);
        machine.excess = facts.excess;
        machine.share_at = facts.share_at_ms;
        machine.ledger = Ledger { accounts: facts.accounts };
        machine.caches = facts.caches;
        machine.spares_wanted = facts.spares_wanted;
        machine.plan_at = facts.plan_at_ms;
        machine.reserved = facts.reserved;
        for (node, size) in facts.sizes {
            machine.cluster.resize(node, size.cpus, size.memory);
        }
        for (node, state, spare) in facts.nodes {
            machine.cluster.set_state(node, state, spare);
        }
        machine.tags = facts.tags;
        for (node, tags) in facts.tagged {
            machine.cluster.set_tags(node, tags);
        }
        machine.jobs = facts.jobs.into_iter().map(|job| (job.id, job)).collect();
        machine.wheel.set_calm(facts.calm_bytes_per_s);
        machine.index();
        for (key, limit) in facts.quotas {
            machine.set_quota(key, Some(limit));
        }
        for (id, key) in facts.parked {
            machine.queue.park(id, key);
        }
        machine.blocked = facts.blocked;
        Ok(machine)
    }

    /// Makes all anew that follows from the facts.
    fn index(&mut self) {
        for (id, claim) in &self.claims {
            self.cluster.claim(&claim.placement, self.jobs[id].spec.per_node());
        }
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in jobs {
            let job = &self.jobs[&id];
            if let Some(placement) = job.placement() {
                self.cluster.hold(id, placement, job.spec.per_node());
            }
            self.index_job(id);
            let job = &self.jobs[&id];
            if job.state == State::Pending {
                self.queue.push(self.shape(&job.spec), self.rank(job));
            }
            self.set_timer(id);
        }
        self.wheel = self.counted_slots();
        // The network may have grown since.
        self.expect_whole_nodes();
    }
}
