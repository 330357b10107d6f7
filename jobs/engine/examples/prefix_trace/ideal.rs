//! What a cache could hit at most.
//!
//! *Knows the future*: keeps only blocks that some later prompt begins with, and gives up the one needed last (Belady
//! 1966). It is out of reach of whatever has to decide before the future has come.
//!
//! *Knows the law*: knows, from the whole trace in hindsight, how likely a block is used again and when, by how often
//! it was used and by how many blocks came new with it; but not which. It removes the block of which, for the time that
//! it would be kept, least hits are due (the index of Gittins 1979). A policy that learns these odds on the way cannot
//! be better informed by the same things.

use std::collections::{BTreeMap, BTreeSet};

use crate::policies::Policy;

/// What is taken into account beside the time since the last use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Knowledge {
    /// How often a block was used.
    pub(crate) uses: bool,
    /// How many blocks came new with it.
    pub(crate) new: bool,
    /// Both of blocks that were removed, too.
    pub(crate) past: bool,
}

impl Knowledge {
    pub(crate) const ALL: Self = Self { uses: true, new: true, past: true };
}

/// Odds by class and age.
pub(crate) struct Law {
    knowledge: Knowledge,
    index: Vec<[f64; AGES]>,
}

/// Ages are in prompts since the last use, in steps of a quarter of an octave.
const AGES: usize = 60;
const USES: usize = 5;
const NEW: usize = 9;

fn age_step(prompts: usize) -> usize {
    ((4.0 * (prompts.max(1) as f64).log2()) as usize).min(AGES - 1)
}

/// The first age of a step.
fn begin(step: usize) -> f64 {
    2.0f64.powf(step as f64 / 4.0)
}

impl Knowledge {
    fn class(self, of: &Known) -> usize {
        let uses = if self.uses { of.uses } else { 1 };
        let new = if self.new { of.new } else { 1 };
        uses.clamp(1, USES) - 1 + USES * (new.max(1).ilog2() as usize).min(NEW - 1)
    }
}

/// What is known about a block beside its age.
#[derive(Clone, Copy)]
struct Known {
    uses: usize,
    new: usize,
    used: usize,
}

/// A prompt's blocks as they stand behind it.
fn learn(known: &mut BTreeMap<u64, Known>, prompt: &[u64], at: usize) {
    let new = prompt.iter().filter(|id| !known.contains_key(id)).count();
    for id in prompt {
        let entry = known.entry(*id).or_insert(Known { uses: 0, new, used: at });
        entry.uses += 1;
        entry.used = at;
    }
}

impl Law {
    pub(crate) fn of(prompts: &[Vec<u64>], knowledge: Knowledge) -> Self {
        let mut known = BTreeMap::new();
        let mut hits = vec![[0.0; AGES]; USES * NEW];
        let mut time = vec![[0.0; AGES]; USES * NEW];
        let mut waited = |it: &Known, until: usize, is_hit: bool| {
            let (class, age) = (knowledge.class(it), until - it.used);
            for (step, time) in time[class].iter_mut().enumerate().take(age_step(age) + 1) {
                *time += begin(step + 1).min(age as f64) - begin(step).min(age as f64);
            }
            hits[class][age_step(age)] += f64::from(u8::from(is_hit));
        };
        for (at, prompt) in prompts.iter().enumerate() {
            prompt.iter().filter_map(|id| known.get(id)).for_each(|it| waited(it, at, true));
            learn(&mut known, prompt, at);
        }
        known.values().for_each(|it| waited(it, prompts.len(), false));
        let index = |class: usize, from: usize| {
            let (mut due, mut kept, mut best) = (0.0, 0.0, 0.0f64);
            for step in from..AGES {
                due += hits[class][step];
                kept += time[class][step];
                best = best.max(if kept > 0.0 { due / kept } else { 0.0 });
            }
            best
        };
        let rows = (0..USES * NEW).map(|class| std::array::from_fn(|step| index(class, step)));
        Self { knowledge, index: rows.collect() }
    }
}

/// See the module, *knows the law*.
pub(crate) struct Informed<'a> {
    capacity: usize,
    law: &'a Law,
    /// Of all blocks ever seen, or of those that are kept.
    known: BTreeMap<u64, Known>,
    place: BTreeMap<u64, (usize, u64)>,
    /// By class, then in the order of the last use.
    queues: Vec<BTreeMap<u64, u64>>,
    uses: u64,
    at: usize,
}

impl<'a> Informed<'a> {
    pub(crate) fn new(capacity: usize, law: &'a Law) -> Self {
        let queues = vec![BTreeMap::new(); USES * NEW];
        let (known, place) = (BTreeMap::new(), BTreeMap::new());
        Self { capacity, law, known, place, queues, uses: 0, at: 0 }
    }
}

impl Policy for Informed<'_> {
    fn holds(&self, id: u64) -> bool {
        self.place.contains_key(&id)
    }

    fn prompt(&mut self, prompt: &[u64]) {
        learn(&mut self.known, prompt, self.at);
        for id in prompt.iter().rev() {
            if let Some((class, place)) = self.place.remove(id) {
                self.queues[class].remove(&place);
            }
            let it = self.known[id];
            self.uses += 1;
            let place = (self.law.knowledge.class(&it), self.uses);
            self.place.insert(*id, place);
            self.queues[place.0].insert(place.1, *id);
        }
        self.at += 1;
        while self.place.len() > self.capacity {
            // The oldest of a class is the one of which least is due, or nearly so.
            let oldest = self.queues.iter().enumerate().filter_map(|(class, queue)| {
                let id = *queue.first_key_value()?.1;
                let age = self.at - self.known[&id].used;
                Some((self.law.index[class][age_step(age)], class, id))
            });
            let Some((_, class, id)) = oldest.min_by(|a, b| a.0.total_cmp(&b.0)) else { return };
            self.queues[class].pop_first();
            self.place.remove(&id);
            if !self.law.knowledge.past {
                self.known.remove(&id);
            }
        }
    }
}

/// Hits of a cache that knows the future.
pub(crate) fn clairvoyant(prompts: &[Vec<u64>], capacity: usize) -> usize {
    let mut uses: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, prompt) in prompts.iter().enumerate() {
        prompt.iter().for_each(|id| uses.entry(*id).or_default().push(at));
    }
    let next = |id: &u64, at: usize| {
        let uses = &uses[id];
        uses.get(uses.partition_point(|used| *used <= at)).copied()
    };
    // By next use; of those of one prompt the last goes first.
    let mut order: BTreeSet<(usize, usize, u64)> = BTreeSet::new();
    let mut present: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    let mut hits = 0;
    for (at, prompt) in prompts.iter().enumerate() {
        hits += prompt.iter().take_while(|id| present.contains_key(id)).count();
        for (depth, id) in prompt.iter().enumerate() {
            if let Some((next, depth)) = present.remove(id) {
                order.remove(&(next, depth, *id));
            }
            if let Some(next) = next(id, at) {
                present.insert(*id, (next, depth));
                order.insert((next, depth, *id));
            }
        }
        while present.len() > capacity {
            let (_, _, id) = order.pop_last().expect("as many as are present");
            present.remove(&id);
        }
    }
    hits
}
