//! The machine: facts in, decisions out.

use std::collections::{BTreeMap, BTreeSet};

use ff2_topology::{NodeId, Topology};

use crate::{
    cluster::Cluster,
    event::{Decision, Event},
    job::{Cause, Job, JobId, JobSpec, Outcome, Shape, State, Then},
    ledger::Ledger,
    placement::Placement,
    policy::Config,
    queue::{Queue, Rank},
    quota::Quotas,
    share::Shares,
    slots::wheel::Wheel,
    tags::Tags,
    timers::Timers,
};

mod backfill;
mod check;
mod claims;
mod consolidate;
mod dependencies;
mod ends;
mod hold;
mod nodes;
mod pass;
mod preempt;
mod round;
mod scale;
mod show;
mod slots;
mod submit;
mod whole;

pub(crate) use backfill::Reservation;
pub(crate) use claims::Claim;

/// How often groups are charged for what runs, and their order is made anew.
const SHARE_EVERY_MS: u64 = 3_600_000;

#[derive(Clone, Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    pub(crate) cluster: Cluster,
    pub(crate) now: u64,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) ended: BTreeMap<JobId, Outcome>,
    pub(crate) next_job: u64,
    pub(crate) claims: BTreeMap<JobId, Claim>,
    pub(crate) quotas: Quotas,
    pub(crate) shares: Shares,
    /// Bands that groups are behind, as of the last look at the shares.
    pub(crate) excess: BTreeMap<String, u32>,
    pub(crate) share_at: u64,
    pub(crate) ledger: Ledger,
    pub(crate) caches: BTreeMap<String, BTreeSet<NodeId>>,
    pub(crate) tags: Tags,
    /// How many nodes are to be kept free: idle ones become spares while there are fewer.
    pub(crate) spares_wanted: u32,
    /// When plans that preempt or move are looked for again.
    pub(crate) plan_at: u64,
    /// Shapes that did not fit since something was last freed.
    pub(crate) blocked: BTreeSet<Shape>,
    /// Nodes that a job which can stop nobody gets when others end, by their limits.
    pub(crate) reserved: Option<Reservation>,

    // From here on nothing is a fact: `facts.rs` makes it anew.
    pub(crate) queue: Queue,
    timers: Timers,
    /// Jobs that lie in several zones.
    across: BTreeSet<JobId>,
    dependents: BTreeMap<JobId, BTreeSet<JobId>>,
    /// Jobs that have not ended, by their users and names.
    named: BTreeMap<(String, String), BTreeSet<JobId>>,
    /// Members of arrays and services that have not ended, by their first.
    members: BTreeMap<JobId, BTreeSet<JobId>>,
    /// Jobs that run, without those that stop.
    running: BTreeSet<JobId>,
    /// Of those the ones with a time limit, by when they end at the latest.
    ends: BTreeSet<(u64, JobId)>,
    stopping: BTreeSet<JobId>,
    /// Jobs that lost a node and have not gone on.
    ahead: BTreeSet<JobId>,
    /// What is written by the slots that jobs have.
    pub(crate) wheel: Wheel,
    /// Jobs that started in this step and shall have a slot.
    without_slot: BTreeSet<JobId>,
    /// Jobs that were told to stop in this step and shall have a slot to save for the last time.
    without_last_slot: BTreeSet<JobId>,
    /// Somebody came to the wheel or left it in this step.
    is_uneven: bool,
    /// Jobs wait since this pass that came after others that began in it.
    let_go: bool,
    /// Plans are looked for in this step for those that go no later than this: they wait for no round.
    urgent: Option<Rank>,
}

impl Scheduler {
    pub fn new(topology: &Topology, config: Config) -> Self {
        Self {
            cluster: Cluster::new(topology, config.beside_gpus),
            config,
            now: 0,
            jobs: BTreeMap::new(),
            ended: BTreeMap::new(),
            next_job: 1,
            claims: BTreeMap::new(),
            quotas: Quotas::default(),
            shares: Shares::default(),
            excess: BTreeMap::new(),
            share_at: SHARE_EVERY_MS,
            ledger: Ledger::default(),
            caches: BTreeMap::new(),
            tags: Tags::default(),
            spares_wanted: 0,
            plan_at: 0,
            reserved: None,
            queue: Queue::default(),
            timers: Timers::default(),
            across: BTreeSet::new(),
            blocked: BTreeSet::new(),
            dependents: BTreeMap::new(),
            named: BTreeMap::new(),
            members: BTreeMap::new(),
            running: BTreeSet::new(),
            ends: BTreeSet::new(),
            stopping: BTreeSet::new(),
            ahead: BTreeSet::new(),
            wheel: Wheel::new(0),
            without_slot: BTreeSet::new(),
            without_last_slot: BTreeSet::new(),
            is_uneven: false,
            let_go: false,
            urgent: None,
        }
    }

    /// Takes in a fact. `now` is in ms since any moment, the same for all facts; time that goes back counts as none.
    /// Facts about runs that are over are ignored, so they may be told twice or late.
    pub fn step(&mut self, now: u64, event: Event, out: &mut Vec<Decision>) {
        self.now = self.now.max(now);
        self.pass_time(out);
        match event {
            Event::Submit(spec) => self.submit(*spec, out),
            Event::Cancel(job) => self.cancel(job, out),
            Event::Suspend(job) => self.hold(job, out),
            Event::Resume(job) => self.resume(job),
            Event::Requeue(job) => self.requeue(job, out),
            Event::Tick => {}
            Event::Exited { job, attempt, succeeded } => self.exited(job, attempt, succeeded, out),
            Event::Lost { job, attempt } => self.lost(job, attempt, out),
            Event::Stopped { job, attempt } => self.stopped(job, attempt, out),
            Event::Node { scope, state } => self.set_nodes(scope, state, out),
            Event::Tags { node, tags } => self.set_tags(node, &tags),
            Event::Size { node, cpus, memory } => self.resize(node, cpus, memory),
            Event::Spares { count } => self.set_spares(count),
            Event::Quota { key, limit } => self.set_quota(key, limit),
            Event::Share { group, weight } => self.shares.set(&group, weight, self.now),
            Event::Scale { service, min, max } => self.scale(service, min, max, out),
            Event::Storage { calm_bytes_per_s } => self.set_calm(calm_bytes_per_s),
            Event::Cached { input, nodes } => self.set_cached(input, nodes),
        }
        self.keep_spares();
        self.pass(out);
        while std::mem::take(&mut self.let_go) {
            self.pass(out);
        }
        self.give_slots();
    }

    /// When a tick is due, though nothing else happens.
    pub fn next_due(&self) -> Option<u64> {
        let plan = self.plans_are_due_at();
        let share = (!self.running.is_empty()).then_some(self.share_at);
        [self.timers.next(), plan, share].into_iter().flatten().min()
    }

    fn pass_time(&mut self, out: &mut Vec<Decision>) {
        while let Some(id) = self.timers.pop(self.now) {
            self.look_at(id, out);
        }
        if self.now >= self.share_at {
            self.share_at = self.now + SHARE_EVERY_MS;
            self.look_at_shares();
        }
    }

    fn look_at(&mut self, id: JobId, out: &mut Vec<Decision>) {
        let job = self.jobs.get_mut(&id).expect("a job that ends has no timer");
        match &mut job.state {
            State::Held => {
                let first = job.member.map_or(id, |member| member.first);
                self.let_members_go(first);
            }
            State::Claiming => {}
            State::Pending => self.requeue_in_order(id),
            State::Running { .. } => {
                self.stop(id, Cause::Overdue, Then::End(Outcome::Failed), out);
            }
            State::Stopping { killed, .. } => {
                *killed = true;
                let attempt = job.attempt;
                out.push(Decision::Kill { job: id, attempt, cause: Cause::GracePassed });
            }
        }
    }

    /// Sets when a job is to be looked at: a run at its time limit, one that stops at the end of its grace, one that
    /// waits when it will have starved.
    pub(crate) fn set_timer(&mut self, id: JobId) {
        let job = &self.jobs[&id];
        let at = match &job.state {
            State::Held => {
                let after = &job.spec.after;
                Some(after.not_before_ms).filter(|at| *at > self.now && after.of.is_empty())
            }
            State::Claiming => None,
            State::Pending => {
                let bands = self.config.policy.bands();
                let period = bands.and_then(|bands| bands.starves_after(job));
                let next =
                    |period| job.since_ms + (self.now - job.since_ms) / period * period + period;
                period.filter(|_| self.band(job) > 0).map(next)
            }
            State::Running { started_ms, .. } => {
                let left = job.spec.limit_ms.map(|limit| limit.saturating_sub(job.ran_ms));
                left.map(|left| started_ms + left)
            }
            State::Stopping { .. } => job.killed_at_ms(),
        };
        self.timers.set(id, at);
    }

    /// Charges groups for what runs, and orders all that waits anew.
    fn look_at_shares(&mut self) {
        let running: Vec<JobId> =
            self.jobs.values().filter(|job| job.placement().is_some()).map(|job| job.id).collect();
        running.into_iter().for_each(|id| self.charge(id));
        let excess = self.shares.excess(self.now, self.config.half_life_ms);
        if excess != self.excess {
            self.excess = excess;
            let waiting: Vec<JobId> = self.queue.jobs().collect();
            waiting.into_iter().for_each(|id| self.requeue_in_order(id));
        }
    }

    /// Puts what a run had since the last time into the accounts.
    fn charge(&mut self, id: JobId) {
        let job = self.jobs.get_mut(&id).expect("it runs");
        let gpu_ms = (self.now - job.charged_ms) * job.gpus();
        job.charged_ms = self.now;
        let half_life = self.config.half_life_ms;
        self.shares.charge(&job.spec.group, gpu_ms, self.now, half_life);
        self.ledger.charge(&job.spec, gpu_ms);
    }

    /// The band of a job now, with what its group is behind and what it waited for.
    pub(crate) fn band(&self, job: &Job) -> u32 {
        let Some(bands) = self.config.policy.bands() else { return 0 };
        let excess = self.excess.get(&job.spec.group).copied().unwrap_or(0);
        let band = bands.band(job.service(self.now)) + excess;
        let starved = match (&job.state, bands.starves_after(job)) {
            (State::Pending, Some(period)) => (self.now - job.since_ms) / period,
            _ => 0,
        };
        band.saturating_sub(u32::try_from(starved).unwrap_or(u32::MAX))
    }

    /// The tags that a job needs are known since it was admitted.
    pub(crate) fn shape(&self, spec: &JobSpec) -> Shape {
        let needs = self.tags.find(&spec.needs).unwrap_or_default();
        let (tasks, task, zone, exclusive) = (spec.tasks, spec.task, spec.zone, spec.exclusive);
        Shape { tasks, task, zone, needs, exclusive }
    }

    pub(crate) fn rank(&self, job: &Job) -> Rank {
        let in_order = self.config.policy.bands().is_none();
        Rank {
            priority: std::cmp::Reverse(if in_order {
                Default::default()
            } else {
                job.spec.priority
            }),
            band: self.band(job),
            behind: !job.ahead,
            submitted_ms: job.submitted_ms,
            job: job.id,
        }
    }

    /// Has others make room for a job in this step, if they may and it has not ended with what it came after.
    pub(crate) fn hurry(&mut self, id: JobId) {
        self.urgent = self.urgent.max(self.jobs.get(&id).map(|job| self.rank(job)));
    }

    /// Makes anew what follows from a job and is no fact, but for the cluster and the queue.
    pub(crate) fn index_job(&mut self, id: JobId) {
        match self.jobs[&id].state {
            State::Running { .. } => self.runs(id),
            State::Stopping { .. } => _ = self.stopping.insert(id),
            State::Held | State::Pending | State::Claiming => {}
        }
        let job = &self.jobs[&id];
        if job.ahead {
            self.ahead.insert(id);
        }
        let claimed = self.claims.get(&id).map(|claim| &claim.placement);
        let mut lies = job.placement().into_iter().chain(claimed);
        if lies.any(|placement| self.cluster.tree.is_across(placement)) {
            self.across.insert(id);
        }
        self.index_name(id);
    }

    /// Makes a job wait, and looks for a place for it in the pass that follows.
    pub(crate) fn wait(&mut self, id: JobId) {
        let now = self.now;
        let job = self.jobs.get_mut(&id).expect("the caller has it");
        job.since_ms = now;
        if job.spec.exclusive {
            self.may_have(id);
        }
        let job = self.jobs.get_mut(&id).expect("the caller has it");
        if job.on_hold {
            return self.put_on_hold(id);
        }
        job.state = State::Pending;
        let job = &self.jobs[&id];
        self.queue.push(self.shape(&job.spec), self.rank(job));
        self.set_timer(id);
    }

    /// Takes a job out of the queue, and its reservation with it.
    pub(crate) fn leave_queue(&mut self, id: JobId) {
        self.queue.remove(id);
        if self.reserved.as_ref().is_some_and(|reserved| reserved.job == id) {
            self.reserved = None;
            self.blocked.clear();
        }
    }

    fn requeue_in_order(&mut self, id: JobId) {
        self.queue.remove(id);
        let job = &self.jobs[&id];
        self.queue.push(self.shape(&job.spec), self.rank(job));
        self.set_timer(id);
    }

    /// Starts a job that waits or whose nodes were claimed. The caller took it out of the queue.
    pub(crate) fn start(&mut self, id: JobId, placement: Placement, out: &mut Vec<Decision>) {
        let now = self.now;
        let job = self.jobs.get_mut(&id).expect("the caller has it");
        assert_eq!(placement.tasks(), job.spec.tasks, "all of {id:?} or nothing");
        self.cluster.take(id, &placement, job.spec.per_node());
        if self.cluster.tree.is_across(&placement) {
            self.across.insert(id);
        }
        job.attempt += 1;
        job.began_ms.get_or_insert(now);
        job.ahead = false;
        self.ahead.remove(&id);
        (job.since_ms, job.charged_ms) = (now, now);
        job.state = State::Running { placement: placement.clone(), started_ms: now };
        self.runs(id);
        self.want_slot(id);
        out.push(self.place_order(&self.jobs[&id], placement));
        self.set_timer(id);
        self.dependency_began(id, out);
    }

    fn runs(&mut self, id: JobId) {
        self.running.insert(id);
        self.ends.extend(self.ends_at(&self.jobs[&id]).map(|at| (at, id)));
    }

    pub(crate) fn runs_no_more(&mut self, id: JobId) {
        if self.running.remove(&id)
            && let Some(at) = self.ends_at(&self.jobs[&id])
        {
            self.ends.remove(&(at, id));
        }
    }

    /// Orders a run to end: with its grace, or at once if nothing is left that could use it.
    pub(crate) fn stop(&mut self, id: JobId, cause: Cause, then: Then, out: &mut Vec<Decision>) {
        let now = self.now;
        let spec = &self.jobs[&id].spec;
        let grace_ms = spec.grace(cause);
        let killed = grace_ms == 0 || matches!(cause, Cause::NodeFailed { .. });
        match killed {
            true => self.give_up_slot(id),
            false => self.want_last_slot(id),
        }
        self.runs_no_more(id);
        let job = self.jobs.get_mut(&id).expect("the caller has it");
        let State::Running { placement, started_ms } = &job.state else {
            unreachable!("only what runs is stopped: {id:?}")
        };
        job.state = State::Stopping {
            placement: placement.clone(),
            started_ms: *started_ms,
            asked_ms: now,
            killed,
            cause,
            then,
        };
        job.since_ms = now;
        self.stopping.insert(id);
        let attempt = job.attempt;
        out.push(match killed {
            true => Decision::Kill { job: id, attempt, cause },
            false => Decision::Suspend { job: id, attempt, grace_ms, cause },
        });
        self.set_timer(id);
    }
}
