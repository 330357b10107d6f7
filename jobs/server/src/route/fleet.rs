//! How many replicas there should be, and of which job. A machine without I/O: it is told what there is, and says whom
//! to drain and what to tell the scheduler.
//!
//! Replicas that are to go get no requests from the step on that says so; the scheduler is told when nothing runs there
//! any more. An update has two jobs: of the new one there is one replica more than are ready, of the old one as many
//! as are missing, so that at no time fewer are ready than wanted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// What an operator asked for (`service.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub min: u32,
    pub max: u32,
    /// The service jobs of its replicas, by first number, oldest first: all but the last are to be replaced by it.
    pub jobs: Vec<u64>,
    /// The begin of a command line that tells the scheduler things: `ff2ctl` and how it finds the cluster. Empty:
    /// somebody else does.
    #[serde(default)]
    pub scheduler: Vec<String>,
}

/// A replica as the router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub job: u64,
    pub index: u32,
    pub is_ready: bool,
    pub in_flight: usize,
    pub slots: usize,
}

/// What the scheduler is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// So many replicas, of which so many are not preempted.
    Scale {
        job: u64,
        min: u32,
        max: u32,
    },
    Cancel {
        job: u64,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Exactly these get no requests.
    pub drain: BTreeSet<String>,
    pub orders: Vec<Order>,
}

/// How patient it is.
#[derive(Debug, Clone, Copy)]
pub struct FleetOptions {
    /// Requests must wait all this time before there is one replica more. After its start it decides nothing for as
    /// long: it has to hear who is there.
    pub up: Duration,
    /// One less must be enough, with half its slots free, all this time.
    pub down: Duration,
    /// For requests at a replica that is to go.
    pub drain: Duration,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            up: Duration::from_secs(10),
            down: Duration::from_secs(120),
            drain: Duration::from_secs(300),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Fleet {
    options: FleetOptions,
    began: Instant,
    /// Replicas that there should be; not known at first.
    wanted: Option<u32>,
    busy_since: Option<Instant>,
    idle_since: Option<Instant>,
    draining: BTreeMap<String, Instant>,
    /// What was ordered last of each job.
    told: BTreeMap<u64, Order>,
}

impl Fleet {
    pub fn new(options: FleetOptions, now: Instant) -> Self {
        Self {
            options,
            began: now,
            wanted: None,
            busy_since: None,
            idle_since: None,
            draining: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    pub fn wanted(&self) -> Option<u32> {
        self.wanted
    }

    /// An order was not carried out: it will be given again.
    pub fn failed(&mut self, order: Order) {
        self.told.retain(|_, told| *told != order);
    }

    /// Decides on what there is now.
    pub fn step(&mut self, now: Instant, plan: &Plan, members: &[Member]) -> Decision {
        let Some((current, old)) = plan.jobs.split_last() else { return Decision::default() };
        if now.duration_since(self.began) < self.options.up || plan.min == 0 || plan.min > plan.max
        {
            return Decision::default();
        }
        let is_update = old.iter().any(|job| self.is_open(*job));
        let wanted = self.want(now, plan, members, is_update);
        let sizes = self.sizes(*current, old, wanted, members);
        let goes = |it: &&Member| sizes.get(&it.job).is_some_and(|size| it.index >= *size);
        let going: Vec<&Member> = members.iter().filter(goes).collect();
        let orders = sizes.iter().filter_map(|(&job, &size)| {
            let order = match size {
                0 => Order::Cancel { job },
                size => Order::Scale { job, min: size.min(plan.min), max: size },
            };
            let is_empty = |it: &&&Member| it.job != job || self.is_drained(now, it);
            let may_go = going.iter().filter(|it| !is_empty(it)).count() == 0;
            (self.told.get(&job) != Some(&order) && may_go).then_some(order)
        });
        let orders: Vec<Order> = orders.collect();
        for order in &orders {
            let (Order::Scale { job, .. } | Order::Cancel { job }) = order;
            self.told.insert(*job, *order);
        }
        let drain: BTreeSet<String> = going.iter().map(|it| it.id.clone()).collect();
        self.draining.retain(|id, _| drain.contains(id));
        for id in &drain {
            self.draining.entry(id.clone()).or_insert(now);
        }
        Decision { drain, orders }
    }

    /// It was not cancelled yet.
    fn is_open(&self, job: u64) -> bool {
        !matches!(self.told.get(&job), Some(Order::Cancel { .. }))
    }

    /// In an earlier step it was said that it goes, and nothing runs there, or its time is over.
    fn is_drained(&self, now: Instant, member: &Member) -> bool {
        let since = self.draining.get(&member.id);
        since.is_some_and(|since| {
            member.in_flight == 0 || now.duration_since(*since) >= self.options.drain
        })
    }

    /// How many there should be in all.
    fn want(&mut self, now: Instant, plan: &Plan, members: &[Member], is_update: bool) -> u32 {
        let ready = members.iter().filter(|it| it.is_ready && !self.draining.contains_key(&it.id));
        let count = ready.clone().count() as u32;
        let mut wanted = self.wanted.unwrap_or(count).clamp(plan.min, plan.max);
        let queue: usize = ready.clone().map(|it| it.in_flight.saturating_sub(it.slots)).sum();
        let in_flight: usize = ready.clone().map(|it| it.in_flight).sum();
        let slots = ready.map(|it| it.slots).sum::<usize>();
        let one_less = slots as f64 * f64::from(wanted - 1) / f64::from(count.max(1));
        let is_idle = wanted > plan.min && (in_flight as f64) <= one_less / 2.0;
        // A change is seen through before there is another.
        let is_busy = queue > 0 && count >= wanted && !is_update;
        let since = |is: bool, since: Option<Instant>| is.then(|| since.unwrap_or(now));
        self.busy_since = since(is_busy, self.busy_since);
        self.idle_since = since(is_idle && !is_update, self.idle_since);
        let over = |since: Option<Instant>, time: Duration| {
            since.is_some_and(|since| now.duration_since(since) >= time)
        };
        if over(self.busy_since, self.options.up) && wanted < plan.max {
            wanted += 1;
            self.busy_since = None;
        } else if over(self.idle_since, self.options.down) {
            wanted -= 1;
            self.idle_since = None;
        }
        self.wanted = Some(wanted);
        wanted
    }

    /// How many each job should have.
    fn sizes(
        &self,
        current: u64,
        old: &[u64],
        wanted: u32,
        members: &[Member],
    ) -> BTreeMap<u64, u32> {
        let ready = members.iter().filter(|it| it.job == current && it.is_ready).count() as u32;
        let mut missing = wanted.saturating_sub(ready);
        let mut sizes = BTreeMap::new();
        for job in old.iter().rev().copied() {
            // One that was cancelled does not come back.
            let (size, ready) =
                if self.is_open(job) { keep(job, missing, members) } else { (0, 0) };
            missing -= ready;
            sizes.insert(job, size);
        }
        let is_update = old.iter().any(|job| self.is_open(*job));
        sizes.insert(current, if is_update { wanted.min(ready + 1) } else { wanted });
        sizes
    }
}

/// How many replicas of a job have so many ready among them, or as many as there are; and those that are ready. The
/// scheduler takes the highest indexes away.
fn keep(job: u64, missing: u32, members: &[Member]) -> (u32, u32) {
    let mut of_job: Vec<&Member> = members.iter().filter(|it| it.job == job).collect();
    of_job.sort_by_key(|it| it.index);
    let (mut size, mut ready) = (0, 0);
    for member in of_job {
        if ready == missing {
            break;
        }
        size = member.index + 1;
        ready += u32::from(member.is_ready);
    }
    (size, ready)
}

#[cfg(test)]
mod tests;
