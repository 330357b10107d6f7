//! Which blocks go when there is no room: those worth least. Pure.
//!
//! GreedyDual-Size (Cao and Irani 1997) with frequency (Cherkasova 1998): a block is worth the seconds that it saves
//! for each byte that it takes, times the root of its uses, on top of a level which rises to the worth of whatever was
//! removed last; so what is not used sinks, slowly if it is dear. The root, because what was used twice is used again
//! one and a half times as often as what was used once, not twice as often (0018). Uses are remembered for a while
//! after a block was removed: one that comes back has shown that it is used again.
//! A block is worth at least as much as one behind it, which is of no use without it; of equals the least recently
//! used goes first.

use std::collections::{BTreeMap, BTreeSet};

/// The blocks of a cache of limited size, by keys of any kind.
#[derive(Debug)]
pub struct Eviction<K> {
    entries: BTreeMap<K, Entry>,
    /// By worth, then by use.
    order: BTreeSet<(Worth, u64, K)>,
    /// Uses of blocks that were removed, with the place in `past_order`.
    past: BTreeMap<K, (u32, u64)>,
    past_order: BTreeMap<u64, K>,
    level: f64,
    uses: u64,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    bytes: u64,
    seconds: f64,
    worth: Worth,
    /// How often, and when last.
    uses: u32,
    used: u64,
}

/// So many times as many removed blocks are remembered as there are others: each is a key and two numbers.
const PAST: usize = 4;

/// A number from 0 up, by its bits: they are in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Worth(u64);

impl<K: Ord + Copy> Eviction<K> {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            order: BTreeSet::new(),
            past: BTreeMap::new(),
            past_order: BTreeMap::new(),
            level: 0.0,
            uses: 0,
            bytes: 0,
            bytes_max,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// A block that is there from now on, of these bytes and the seconds that computing it again takes. Of one that is
    /// there already, only these and its age change.
    pub fn put(&mut self, key: K, bytes: u64, seconds: f64) {
        self.forget(&key);
        let past = self.past.remove(&key);
        let uses = past.map_or(0, |(uses, place)| {
            self.past_order.remove(&place);
            uses
        });
        self.bytes += bytes;
        let entry = Entry { bytes, seconds, worth: Worth(0), uses, used: 0 };
        self.entries.insert(key, entry);
        self.order.insert((entry.worth, entry.used, key));
        self.renew(&[key], 0);
    }

    /// A prompt began with these blocks, first to last. Those that are not there are passed over.
    pub fn used(&mut self, chain: &[K]) {
        self.renew(chain, 1);
    }

    fn renew(&mut self, chain: &[K], more: u32) {
        let mut behind = Worth(0);
        for key in chain.iter().rev() {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            self.order.remove(&(entry.worth, entry.used, *key));
            entry.uses = entry.uses.saturating_add(more);
            let saves = entry.seconds.max(0.0) / entry.bytes.max(1) as f64;
            let own = self.level + saves * f64::from(entry.uses.max(1)).sqrt();
            behind = behind.max(Worth(own.to_bits()));
            self.uses += 1;
            (entry.worth, entry.used) = (behind, self.uses);
            self.order.insert((entry.worth, entry.used, *key));
        }
    }

    /// The block to remove for the limit's sake, no longer counted; None if all is within it.
    pub fn evict(&mut self) -> Option<K> {
        if self.bytes <= self.bytes_max {
            return None;
        }
        let (worth, _, key) = *self.order.first()?;
        self.level = self.level.max(f64::from_bits(worth.0));
        self.forget(&key);
        Some(key)
    }

    /// Forgets all blocks but these.
    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        let gone: Vec<K> = self.entries.keys().filter(|key| !keep(key)).copied().collect();
        gone.iter().for_each(|key| self.forget(key));
    }

    /// A block that is gone.
    pub fn forget(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&(entry.worth, entry.used, *key));
            self.bytes -= entry.bytes;
            self.remember(*key, entry.uses);
        }
    }

    fn remember(&mut self, key: K, uses: u32) {
        self.uses += 1;
        self.past.insert(key, (uses, self.uses));
        self.past_order.insert(self.uses, key);
        while self.past.len() > PAST * self.entries.len().max(1)
            && let Some((_, oldest)) = self.past_order.pop_first()
        {
            self.past.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheap_go_first_and_the_unused_sink() {
        let mut cache = Eviction::new(30);
        cache.put('a', 10, 1.0);
        cache.put('b', 10, 5.0);
        cache.put('c', 10, 1.0);
        assert_eq!(cache.evict(), None);
        cache.used(&['a']);
        cache.put('d', 10, 1.0);
        assert_eq!(cache.evict(), Some('c'));
        // The dear one stays through as many removals as it is dearer.
        let mut gone = Vec::new();
        for new in 'e'..'z' {
            cache.put(new, 10, 1.0);
            gone.extend(cache.evict());
        }
        let at = gone.iter().position(|key| *key == 'b').unwrap();
        assert!((6..12).contains(&at), "{gone:?}");
        assert_eq!(cache.bytes(), 30);
    }

    #[test]
    fn a_block_stays_as_long_as_one_behind_it() {
        let mut cache = Eviction::new(20);
        cache.put(1, 10, 1.0);
        cache.put(2, 10, 9.0);
        cache.used(&[1, 2]);
        cache.put(3, 10, 2.0);
        assert_eq!(cache.evict(), Some(3));
        cache.put(4, 10, 20.0);
        assert_eq!(cache.evict(), Some(2));
    }

    #[test]
    fn what_was_used_more_often_stays_longer() {
        let mut cache = Eviction::new(20);
        cache.put('a', 10, 1.0);
        (0..4).for_each(|_| cache.used(&['a']));
        cache.put('b', 10, 1.0);
        // That it is saved again is no use.
        (0..4).for_each(|_| cache.put('b', 10, 1.0));
        cache.put('c', 10, 1.0);
        assert_eq!(cache.evict(), Some('b'));
        cache.put('d', 10, 1.0);
        assert_eq!(cache.evict(), Some('c'));
        // Four uses are worth two: it goes once the level has risen by as much as one new block is worth.
        cache.put('e', 10, 1.0);
        assert_eq!(cache.evict(), Some('a'));
    }

    #[test]
    fn what_was_removed_is_remembered_for_a_while() {
        let mut cache = Eviction::new(20);
        cache.put('a', 10, 1.0);
        (0..9).for_each(|_| cache.used(&['a']));
        cache.forget(&'a');
        cache.put('a', 10, 1.0);
        for new in ['b', 'c'] {
            cache.put(new, 10, 1.0);
            cache.used(&[new]);
        }
        assert_eq!(cache.evict(), Some('b'), "the other was used more often before");
        for new in 'd'..'z' {
            cache.put(new, 10, 1.0);
            cache.evict();
        }
        assert!(cache.past.len() <= PAST * 2 && cache.past.len() == cache.past_order.len());
        assert!(!cache.past.contains_key(&'b'), "not for ever");
    }
}
