//! Policies of eviction, each with the block of a prompt's end going before those in front of it: it is of no use
//! without them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ff2_engine::Eviction;

/// A cache of as many blocks as it was made for.
pub(crate) trait Policy {
    fn holds(&self, id: u64) -> bool;
    /// A prompt was computed: all its blocks are there to be kept.
    fn prompt(&mut self, prompt: &[u64]);
}

/// The engine's own. All blocks cost as much, as it says of those that it computed at about the same time.
pub(crate) struct Ours {
    cache: Eviction<u64>,
    seconds: f64,
}

impl Ours {
    pub(crate) fn new(capacity: usize, seconds: f64) -> Self {
        Self { cache: Eviction::new(capacity as u64), seconds }
    }
}

impl Policy for Ours {
    fn holds(&self, id: u64) -> bool {
        self.cache.contains(&id)
    }

    fn prompt(&mut self, prompt: &[u64]) {
        for id in prompt {
            if !self.cache.contains(id) {
                self.cache.put(*id, 1, self.seconds);
            }
        }
        self.cache.used(prompt);
        while self.cache.evict().is_some() {}
    }
}

/// A level that rises to what was removed last, and on it a weight by the number of uses and by how many blocks came
/// new with a block (GreedyDual with other weights than ours; the number of uses alone: LFU with dynamic ageing, Arlitt
/// et al. 2000).
pub(crate) struct Weighed {
    capacity: usize,
    weight: fn(uses: f64, new: f64) -> f64,
    level: f64,
    uses: u64,
    /// Uses, blocks that came with it, place in the order.
    entries: BTreeMap<u64, (f64, f64, (u64, u64))>,
    /// By bits of the worth (in the order of numbers from 0 up), then by last use.
    order: BTreeMap<(u64, u64), u64>,
}

impl Weighed {
    pub(crate) fn new(capacity: usize, weight: fn(f64, f64) -> f64) -> Self {
        let (entries, order) = (BTreeMap::new(), BTreeMap::new());
        Self { capacity, weight, level: 0.0, uses: 0, entries, order }
    }
}

impl Policy for Weighed {
    fn holds(&self, id: u64) -> bool {
        self.entries.contains_key(&id)
    }

    fn prompt(&mut self, prompt: &[u64]) {
        let new = prompt.iter().filter(|id| !self.holds(**id)).count() as f64;
        let mut behind = 0;
        for id in prompt.iter().rev() {
            let (uses, new) = match self.entries.get(id) {
                Some((uses, new, place)) => {
                    self.order.remove(place);
                    (uses + 1.0, *new)
                }
                None => (1.0, new),
            };
            behind = behind.max((self.level + (self.weight)(uses, new)).to_bits());
            self.uses += 1;
            self.entries.insert(*id, (uses, new, (behind, self.uses)));
            self.order.insert((behind, self.uses), *id);
        }
        while self.entries.len() > self.capacity
            && let Some(((worth, _), id)) = self.order.pop_first()
        {
            self.level = self.level.max(f64::from_bits(worth));
            self.entries.remove(&id);
        }
    }
}

/// Blocks in the order of their last use.
#[derive(Default)]
struct Recent {
    places: BTreeMap<u64, u64>,
    order: BTreeMap<u64, u64>,
    uses: u64,
}

impl Recent {
    fn renew(&mut self, id: u64) {
        self.remove(id);
        self.uses += 1;
        self.places.insert(id, self.uses);
        self.order.insert(self.uses, id);
    }

    fn remove(&mut self, id: u64) -> bool {
        self.places.remove(&id).is_some_and(|place| self.order.remove(&place).is_some())
    }

    fn pop(&mut self) -> Option<u64> {
        let (_, id) = self.order.pop_first()?;
        self.places.remove(&id);
        Some(id)
    }

    fn holds(&self, id: u64) -> bool {
        self.places.contains_key(&id)
    }

    fn len(&self) -> usize {
        self.places.len()
    }
}

/// Two LRU queues: what was used again is in the second, of at most four fifths, and falls back into the first
/// (Karedla et al. 1994).
pub(crate) struct Segmented {
    capacity: usize,
    once: Recent,
    again: Recent,
}

impl Segmented {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, once: Recent::default(), again: Recent::default() }
    }
}

impl Policy for Segmented {
    fn holds(&self, id: u64) -> bool {
        self.once.holds(id) || self.again.holds(id)
    }

    fn prompt(&mut self, prompt: &[u64]) {
        for id in prompt.iter().rev() {
            if self.once.remove(*id) || self.again.holds(*id) {
                self.again.renew(*id);
            } else {
                self.once.renew(*id);
            }
        }
        while self.again.len() > self.capacity / 5 * 4
            && let Some(id) = self.again.pop()
        {
            self.once.renew(id);
        }
        while self.once.len() + self.again.len() > self.capacity && self.once.pop().is_some() {}
    }
}

/// SIEVE (Zhang et al. 2024): in the order in which they came, a hand that spares once what was used again.
pub(crate) struct Sieve {
    capacity: usize,
    /// Place by block, and whether it was used again.
    entries: BTreeMap<u64, (u64, bool)>,
    order: BTreeMap<u64, u64>,
    hand: u64,
    came: u64,
}

impl Sieve {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, entries: BTreeMap::new(), order: BTreeMap::new(), hand: 0, came: 0 }
    }
}

impl Policy for Sieve {
    fn holds(&self, id: u64) -> bool {
        self.entries.contains_key(&id)
    }

    fn prompt(&mut self, prompt: &[u64]) {
        for id in prompt.iter().rev() {
            if let Some((_, again)) = self.entries.get_mut(id) {
                *again = true;
                continue;
            }
            self.came += 1;
            self.entries.insert(*id, (self.came, false));
            self.order.insert(self.came, *id);
        }
        while self.entries.len() > self.capacity {
            let next =
                self.order.range(self.hand..).next().or_else(|| self.order.first_key_value());
            let Some((place, id)) = next.map(|(place, id)| (*place, *id)) else { return };
            self.hand = place + 1;
            match self.entries.get_mut(&id) {
                Some((_, again)) if *again => *again = false,
                _ => {
                    self.entries.remove(&id);
                    self.order.remove(&place);
                }
            }
        }
    }
}

/// S3-FIFO (Yang et al. 2023): a small queue of a tenth for what is new, a main one for what was used again in it, and
/// names of what left the small one without, which go to the main one if they come back.
pub(crate) struct S3Fifo {
    capacity: usize,
    /// Uses beyond the first, up to 3, and whether it is in the small queue.
    entries: BTreeMap<u64, (u8, bool)>,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    ghosts: Recent,
}

impl S3Fifo {
    pub(crate) fn new(capacity: usize) -> Self {
        let (small, main) = (VecDeque::new(), VecDeque::new());
        Self { capacity, entries: BTreeMap::new(), small, main, ghosts: Recent::default() }
    }

    fn evict(&mut self) {
        if self.small.len() > self.capacity / 10 || self.main.is_empty() {
            let Some(id) = self.small.pop_front() else { return };
            if self.entries[&id].0 > 0 {
                self.entries.insert(id, (0, false));
                self.main.push_back(id);
                return;
            }
            self.entries.remove(&id);
            self.ghosts.renew(id);
            if self.ghosts.len() > self.capacity {
                self.ghosts.pop();
            }
        } else if let Some(id) = self.main.pop_front() {
            let (uses, _) = self.entries[&id];
            if uses > 0 {
                self.entries.insert(id, (uses - 1, false));
                self.main.push_back(id);
            } else {
                self.entries.remove(&id);
            }
        }
    }
}

impl Policy for S3Fifo {
    fn holds(&self, id: u64) -> bool {
        self.entries.contains_key(&id)
    }

    fn prompt(&mut self, prompt: &[u64]) {
        for id in prompt.iter().rev() {
            if let Some((uses, _)) = self.entries.get_mut(id) {
                *uses = (*uses + 1).min(3);
                continue;
            }
            let is_new = !self.ghosts.remove(*id);
            self.entries.insert(*id, (0, is_new));
            if is_new { self.small.push_back(*id) } else { self.main.push_back(*id) }
        }
        while self.entries.len() > self.capacity {
            self.evict();
        }
    }
}

/// LRU for what was seen before, within the last four times as many blocks as fit: what is seen once takes no place.
pub(crate) struct SecondSight {
    capacity: usize,
    kept: Recent,
    seen: BTreeSet<u64>,
    ages: VecDeque<u64>,
}

impl SecondSight {
    pub(crate) fn new(capacity: usize) -> Self {
        let (seen, ages) = (BTreeSet::new(), VecDeque::new());
        Self { capacity, kept: Recent::default(), seen, ages }
    }
}

impl Policy for SecondSight {
    fn holds(&self, id: u64) -> bool {
        self.kept.holds(id)
    }

    fn prompt(&mut self, prompt: &[u64]) {
        for id in prompt.iter().rev() {
            if self.kept.holds(*id) || self.seen.contains(id) {
                self.kept.renew(*id);
            } else {
                self.seen.insert(*id);
                self.ages.push_back(*id);
            }
        }
        while self.kept.len() > self.capacity && self.kept.pop().is_some() {}
        while self.ages.len() > 4 * self.capacity
            && let Some(id) = self.ages.pop_front()
        {
            self.seen.remove(&id);
        }
    }
}
