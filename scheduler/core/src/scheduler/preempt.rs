//! Plans by which a job takes the place of others. A plan lets the job run, or is none.

use std::{cmp::Reverse, collections::BTreeSet};

use ff2_topology::NodeId;

use crate::{
    event::Decision,
    job::{JobId, JobSpec, Priority, Resources, Shape},
    per_node::PerNode,
    placement::{Placement, Slot},
    scheduler::{
        Scheduler,
        round::{Candidate, Claimant, Price, Prices, Round, RunAt},
    },
    tree::Want,
};

/// What there would be, without the victims so far.
struct Scratch<'a> {
    scheduler: &'a Scheduler,
    round: &'a Round,
    claimant: Claimant,
    shape: Shape,
    free: Vec<Resources>,
    victims: Victims,
    avoided: BTreeSet<NodeId>,
}

/// Those that would be stopped.
#[derive(Clone)]
struct Victims {
    all: Vec<RunAt>,
    /// By run.
    are: Vec<bool>,
}

impl Victims {
    fn none_of(runs: usize) -> Self {
        Self { all: Vec::new(), are: vec![false; runs] }
    }

    fn insert(&mut self, run: RunAt) -> bool {
        let is_new = !std::mem::replace(&mut self.are[run], true);
        if is_new {
            self.all.push(run);
        }
        is_new
    }
}

/// A plan for a gang in a part of the network.
struct Gang {
    price: Price,
    placement: Placement,
    free: Vec<Resources>,
    victims: Victims,
}

impl Scheduler {
    /// Claims nodes for a job from others that come behind it. The nodes are its own from now on, though it starts
    /// when the last of them has stopped.
    pub(crate) fn preempt_for(
        &mut self,
        id: JobId,
        round: &mut Round,
        out: &mut Vec<Decision>,
    ) -> bool {
        let Some((placement, victims)) = self.plan(id, round) else { return false };
        for victim in &victims {
            round.remove(*victim, &self.jobs[victim], &self.cluster);
        }
        self.claim_for(id, placement, victims, out);
        true
    }

    /// Whether there is room for a job as soon as those have stopped that were told to: nobody else needs to stop then.
    fn fits_soon(&self, spec: &JobSpec, round: &Round) -> bool {
        if round.stopping.is_empty() {
            return false;
        }
        let shape = self.shape(spec);
        let room = |node: NodeId| {
            if !self.cluster.may_be_used(node) || !self.cluster.suits(node, shape) {
                return 0;
            }
            let stops = round.stopping.get(&node).copied().unwrap_or_default();
            // What is claimed there is so by somebody who waits for them too.
            let stays = self.cluster.used(node).without(stops).with(self.cluster.claimed(node));
            let free = self.cluster.capacity(node).without(stays);
            self.cluster.room_in(node, free, spec.per_node()).min(spec.tasks)
        };
        let room: Vec<u32> = self.cluster.ids().map(room).collect();
        let across = self.may_lie_across();
        let want = Want { tasks: spec.tasks, zone: spec.zone, spread: spec.reads_much, across };
        self.cluster.tree.lay(&room, want).is_some()
    }

    fn plan(&self, id: JobId, round: &mut Round) -> Option<(Placement, Vec<JobId>)> {
        let job = &self.jobs[&id];
        let bands = self.config.policy.bands()?;
        let waits_ms = self.now - job.since_ms;
        let claimant = Claimant {
            priority: job.spec.priority,
            band: self.band(job),
            is_patient: waits_ms >= bands.patience_ms,
            outwaits: waits_ms >= bands.min_run_ms,
        };
        if !round.has_anybody_for(claimant) || self.fits_soon(&job.spec, round) {
            return None;
        }
        let class = (self.shape(&job.spec), claimant);
        let prices = round.take_prices(class);
        let avoided = self.avoided(id);
        let free = |node: NodeId| match avoided.contains(&node) {
            true => Resources::default(),
            false => self.cluster.free(node),
        };
        let free = self.cluster.ids().map(free).collect();
        let mut scratch = Scratch {
            scheduler: self,
            round,
            claimant,
            shape: class.0,
            free,
            victims: Victims::none_of(round.runs()),
            avoided,
        };
        if job.spec.tasks > 1 {
            return scratch.plan_of(&job.spec, |scratch| scratch.gang(&job.spec));
        }
        let mut prices = prices.unwrap_or_else(|| scratch.prices(&job.spec));
        let plan = scratch.plan_of(&job.spec, |scratch| scratch.one(&job.spec, &mut prices));
        round.keep_prices(class, prices);
        plan
    }
}

impl Scratch<'_> {
    /// With those of the victims that it needs. Without any the job would have been placed before.
    fn plan_of(
        &mut self,
        spec: &JobSpec,
        place: impl FnOnce(&mut Self) -> Option<Placement>,
    ) -> Option<(Placement, Vec<JobId>)> {
        let placement = place(self)?;
        let victims = self.needed(&placement, spec.per_node());
        let victims: Vec<JobId> = victims.into_iter().map(|run| self.round.run(run).id).collect();
        (!victims.is_empty()).then_some((placement, victims))
    }

    /// What one task costs on each node.
    fn prices(&self, spec: &JobSpec) -> Prices {
        let nodes = self.scheduler.cluster.ids().filter(|node| self.may_lie(*node, spec));
        let priced = nodes.filter_map(|node| Some((self.price(node, spec.per_node())?.0, node)));
        priced.map(Reverse).collect()
    }

    /// The node where one more task costs least. Prices are those of the last look: they are looked at again when their
    /// turn comes.
    fn one(&mut self, spec: &JobSpec, prices: &mut Prices) -> Option<Placement> {
        let mut passed_over = Vec::new();
        let found = loop {
            let Some(Reverse((price, node))) = prices.pop() else { break None };
            if !self.may_lie(node, spec) {
                passed_over.push(Reverse((price, node)));
                continue;
            }
            let Some((now, victims)) = self.price(node, spec.per_node()) else { continue };
            prices.push(Reverse((now, node)));
            if now == price {
                break Some((node, victims));
            }
        };
        prices.extend(passed_over);
        let (node, victims) = found?;
        self.stop(&victims);
        Some(Placement { slots: vec![Slot { node, tasks: 1 }] })
    }

    /// Takes the cheapest nodes until there is room for all: within a leaf if that stops nobody better than elsewhere
    /// in the zone, within a zone if that can be, and else over both.
    fn gang(&mut self, spec: &JobSpec) -> Option<Placement> {
        let across = self.scheduler.may_lie_across();
        let want = Want { tasks: spec.tasks, zone: spec.zone, spread: spec.reads_much, across };
        let all: Vec<NodeId> =
            self.scheduler.cluster.ids().filter(|node| self.may_lie(*node, spec)).collect();
        // What there would be without all that may be stopped: most parts are out of question by that alone.
        let mut room = vec![0; self.free.len()];
        for node in &all {
            room[node.index()] = self.room(*node, self.at_most(*node), spec);
        }
        let tree = &self.scheduler.cluster.tree;
        if tree.most(&room, want) < u64::from(want.tasks) {
            return None;
        }
        let in_zone = |zone| all.iter().copied().filter(move |node| tree.is_in(*node, Some(zone)));
        let zones = tree.zones().filter(|zone| spec.zone.is_none_or(|only| only == *zone));
        let zones = zones.map(|zone| (Want { zone: Some(zone), ..want }, in_zone(zone).collect()));
        let leaves = tree.leaves().map(|(leaf, nodes)| {
            let within = Want { zone: Some(tree.zone_of(leaf)), ..want };
            (within, nodes.iter().copied().filter(|node| self.may_lie(*node, spec)).collect())
        });
        let (zones, leaves) = (zones.collect(), leaves.collect());
        let zone = self.cheapest(spec, zones, &room);
        let leaf = if spec.reads_much { None } else { self.cheapest(spec, leaves, &room) };
        let plan = match (leaf, zone) {
            (Some(leaf), Some(zone))
                if leaf.price.0 == zone.price.0 && leaf.price.1 == zone.price.1 =>
            {
                Some(leaf)
            }
            (_, zone) => zone,
        };
        if let Some(plan) = plan {
            (self.free, self.victims) = (plan.free, plan.victims);
            return Some(plan.placement);
        }
        if !across || spec.zone.is_some() {
            return None;
        }
        self.gang_within(spec, want, &all)
    }

    /// Of several parts of the network the one where a gang costs least.
    fn cheapest(
        &mut self,
        spec: &JobSpec,
        parts: Vec<(Want, Vec<NodeId>)>,
        room: &[u32],
    ) -> Option<Gang> {
        let has_room = |nodes: &[NodeId]| {
            let room = nodes.iter().map(|node| u64::from(room[node.index()]));
            room.sum::<u64>() >= u64::from(spec.tasks)
        };
        let start = (self.free.clone(), self.victims.clone());
        let mut best: Option<Gang> = None;
        for (want, nodes) in parts.into_iter().filter(|(_, nodes)| has_room(nodes)) {
            if let Some(placement) = self.gang_within(spec, want, &nodes) {
                let price = self.total(&self.needed(&placement, spec.per_node()));
                if best.as_ref().is_none_or(|best| price < best.price) {
                    let (free, victims) = (self.free.clone(), self.victims.clone());
                    best = Some(Gang { price, placement, free, victims });
                }
            }
            (self.free, self.victims) = start.clone();
        }
        best
    }

    fn gang_within(&mut self, spec: &JobSpec, want: Want, nodes: &[NodeId]) -> Option<Placement> {
        // Each round adds a task to each node at most.
        for _ in 0..=self.scheduler.cluster.gpus_max() {
            let mut room = vec![0; self.free.len()];
            for node in nodes {
                room[node.index()] = self.room(*node, self.free[node.index()], spec);
            }
            let mut missing =
                u64::from(want.tasks).saturating_sub(self.scheduler.cluster.tree.most(&room, want));
            if missing == 0 {
                return self.scheduler.cluster.tree.lay(&room, want);
            }
            let mut priced: Vec<_> = nodes
                .iter()
                .filter_map(|node| Some((self.price_of_more(*node, spec.per_node())?, *node)))
                .collect();
            if priced.is_empty() {
                return None;
            }
            priced.sort_unstable();
            for ((_, victims), node) in priced {
                let before = self.room(node, self.free[node.index()], spec);
                self.stop(&victims);
                let gained = self.room(node, self.free[node.index()], spec).saturating_sub(before);
                missing = missing.saturating_sub(u64::from(gained));
                if missing == 0 {
                    break;
                }
            }
        }
        None
    }

    fn may_lie(&self, node: NodeId, spec: &JobSpec) -> bool {
        let cluster = &self.scheduler.cluster;
        cluster.may_be_used(node)
            && !self.avoided.contains(&node)
            && spec.task.fits_in(cluster.capacity(node))
            && cluster.suits(node, self.shape)
    }

    fn room(&self, node: NodeId, free: Resources, spec: &JobSpec) -> u32 {
        self.scheduler.cluster.room_in(node, free, spec.per_node())
    }

    fn price(&self, node: NodeId, per_node: PerNode) -> Option<(Price, Vec<RunAt>)> {
        let free = self.free[node.index()];
        if self.scheduler.cluster.room_in(node, free, per_node) > 0 {
            return Some((self.total(&[]), Vec::new()));
        }
        self.price_of_more(node, per_node)
    }

    /// What it takes that a node has room for one more task than it has: the cheaper of one victim that
    /// is enough and of several, the last in line first.
    fn price_of_more(&self, node: NodeId, per_node: PerNode) -> Option<(Price, Vec<RunAt>)> {
        let free = self.free[node.index()];
        let wanted = per_node.for_one_more(free, self.scheduler.cluster.capacity(node))?;
        let candidates: Vec<&Candidate> =
            self.stoppable(node).filter(|candidate| !self.victims.are[candidate.run]).collect();
        let alone = candidates.iter().filter(|one| wanted.fits_in(free.with(one.held)));
        let alone =
            alone.map(|one| vec![one.run]).map(|victims| (self.total(&victims), victims)).min();
        let (mut sum, mut several) = (free, Vec::new());
        for candidate in candidates {
            if wanted.fits_in(sum) {
                break;
            }
            sum = sum.with(candidate.held);
            several.push((candidate.run, candidate.held));
        }
        if !wanted.fits_in(sum) {
            return None;
        }
        // Those that came first may not be needed any more.
        let mut kept: Vec<RunAt> = Vec::new();
        for (run, held) in several {
            if wanted.fits_in(sum.without(held)) {
                sum = sum.without(held);
            } else {
                kept.push(run);
            }
        }
        let several = (self.total(&kept), kept);
        Some(alone.map_or(several.clone(), |alone| alone.min(several)))
    }

    /// Who may be stopped on a node, in the order in which they go.
    fn stoppable(&self, node: NodeId) -> impl Iterator<Item = &Candidate> {
        self.round.at(node).filter(|candidate| self.claimant.may_stop(&candidate.standing))
    }

    /// What a node would have without all that may be stopped there.
    fn at_most(&self, node: NodeId) -> Resources {
        let free = self.free[node.index()];
        self.stoppable(node).fold(free, |sum, candidate| sum.with(candidate.held))
    }

    fn total(&self, victims: &[RunAt]) -> Price {
        let of = || victims.iter().map(|run| self.round.run(*run).standing);
        let oldest = victims.iter().min().map_or(JobId(u64::MAX), |run| self.round.run(*run).id);
        (
            of().map(|standing| standing.priority).max().unwrap_or(Priority::Idle),
            Reverse(of().map(|standing| standing.band).min().unwrap_or(u32::MAX)),
            Reverse(oldest),
            of().map(|standing| standing.gpus).sum(),
            victims.len(),
        )
    }

    fn stop(&mut self, victims: &[RunAt]) {
        for run in victims {
            if !self.victims.insert(*run) {
                continue;
            }
            let job = &self.scheduler.jobs[&self.round.run(*run).id];
            for slot in job.placement().iter().flat_map(|placement| &placement.slots) {
                let may_lie = self.scheduler.cluster.may_be_used(slot.node)
                    && !self.avoided.contains(&slot.node);
                if may_lie {
                    let cluster = &self.scheduler.cluster;
                    let free = &mut self.free[slot.node.index()];
                    *free = free.with(cluster.taken(slot.node, job.spec.per_node(), slot.tasks));
                }
            }
        }
    }

    /// The victims without which the placement has not the room: the others go on.
    fn needed(&self, placement: &Placement, per_node: PerNode) -> Vec<RunAt> {
        let cluster = &self.scheduler.cluster;
        let mut free = self.free.clone();
        let mut wanted = vec![Resources::default(); free.len()];
        for slot in &placement.slots {
            wanted[slot.node.index()] = cluster.taken(slot.node, per_node, slot.tasks);
        }
        let mut victims = self.victims.all.clone();
        // Who stands best is spared first.
        victims.sort_unstable_by_key(|run| {
            let standing = self.round.run(*run).standing;
            (Reverse(standing.priority), standing.band, Reverse(standing.gpus), *run)
        });
        victims.retain(|run| {
            let job = &self.scheduler.jobs[&self.round.run(*run).id];
            let slots = || job.placement().into_iter().flat_map(|placement| &placement.slots);
            let used = |slot: &Slot| cluster.taken(slot.node, job.spec.per_node(), slot.tasks);
            let is_needed = slots().any(|slot| {
                let without = free[slot.node.index()].without(used(slot));
                !wanted[slot.node.index()].fits_in(without)
            });
            if !is_needed {
                for slot in slots() {
                    free[slot.node.index()] = free[slot.node.index()].without(used(slot));
                }
            }
            is_needed
        });
        victims
    }
}
