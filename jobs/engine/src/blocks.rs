//! Who has which block of the cache: references, and the prefix cache in memory. Pure: no pages, no clock.
//!
//! A full block may be published under a key that stands for all tokens up to its end. When its last sequence lets it
//! go it stays, idle, until its place is needed: the one that was let go first goes first.

use std::collections::BTreeMap;

use ff2_model::Block;
use sha2::{Digest, Sha256};

/// Stands for a model and all tokens from the first to the end of a block, so equal keys are equal contents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(pub(crate) [u8; 32]);

impl Key {
    /// The key of the block behind this one: SHA-256 of this key and the block's tokens, little-endian.
    pub(crate) fn next(&self, tokens: &[u32]) -> Self {
        let mut hash = Sha256::new_with_prefix(self.0);
        tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
        Self(hash.finalize().into())
    }

    /// The keys of all full blocks of `tokens`.
    pub(crate) fn chain(root: Self, tokens: &[u32], block_tokens: usize) -> Vec<Self> {
        let step = |key: &mut Self, block: &[u32]| {
            *key = key.next(block);
            Some(*key)
        };
        tokens.chunks_exact(block_tokens).scan(root, step).collect()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}{:02x}", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

#[derive(Debug)]
pub(crate) struct Blocks {
    entries: Vec<Entry>,
    /// Without content that anybody may want.
    free: Vec<Block>,
    published: BTreeMap<Key, Block>,
    /// Published and without a reference, by when they were let go.
    idle: BTreeMap<u64, Block>,
    releases: u64,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    references: u32,
    key: Option<Key>,
    /// Its place in `idle` while there.
    released: u64,
}

impl Blocks {
    pub(crate) fn new(count: usize) -> Self {
        let numbers = 0..u32::try_from(count).expect("block numbers have 32 bits");
        Self {
            entries: vec![Entry::default(); count],
            free: numbers.rev().map(Block).collect(),
            published: BTreeMap::new(),
            idle: BTreeMap::new(),
            releases: 0,
        }
    }

    /// A block of undefined content with one reference; an idle one loses its key for it.
    pub(crate) fn take(&mut self) -> Option<Block> {
        let block = self.free.pop().or_else(|| {
            let (_, block) = self.idle.pop_first()?;
            if let Some(key) = self.entry(block).key.take() {
                self.published.remove(&key);
            }
            Some(block)
        })?;
        self.entry(block).references = 1;
        Some(block)
    }

    /// One more reference to a block that has some.
    pub(crate) fn share(&mut self, block: Block) {
        let entry = self.entry(block);
        assert!(entry.references > 0, "{block:?} is shared but nobody has it");
        entry.references += 1;
    }

    /// The block published under a key, with one more reference.
    pub(crate) fn find(&mut self, key: &Key) -> Option<Block> {
        let block = *self.published.get(key)?;
        let entry = self.entry(block);
        entry.references += 1;
        if entry.references == 1 {
            let released = entry.released;
            self.idle.remove(&released);
        }
        Some(block)
    }

    #[cfg(test)]
    pub(crate) fn knows(&self, key: &Key) -> bool {
        self.published.contains_key(key)
    }

    pub(crate) fn release(&mut self, block: Block) {
        let stamp = self.releases;
        let entry = self.entry(block);
        assert!(entry.references > 0, "{block:?} is released but nobody has it");
        entry.references -= 1;
        if entry.references > 0 {
            return;
        }
        if entry.key.is_some() {
            entry.released = stamp;
            self.releases += 1;
            self.idle.insert(stamp, block);
        } else {
            self.free.push(block);
        }
    }

    /// Lets go of a sequence's blocks: the last first, as those before it are of use without it but not it without them.
    pub(crate) fn release_all(&mut self, blocks: &[Block]) {
        blocks.iter().rev().for_each(|block| self.release(*block));
    }

    /// Makes a full block findable. False if another one is under this key already, or this one under some key.
    pub(crate) fn publish(&mut self, block: Block, key: Key) -> bool {
        if self.published.contains_key(&key) || self.entry(block).key.is_some() {
            return false;
        }
        self.entry(block).key = Some(key);
        self.published.insert(key, block);
        true
    }

    pub(crate) fn is_shared(&self, block: Block) -> bool {
        self.entries[block.0 as usize].references > 1
    }

    /// Those that `take` can give.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    fn entry(&mut self, block: Block) -> &mut Entry {
        &mut self.entries[block.0 as usize]
    }

    /// Each block is in exactly one place. For tests and debug builds.
    pub(crate) fn check(&self) {
        let referenced = self.entries.iter().filter(|entry| entry.references > 0).count();
        assert_eq!(referenced + self.free.len() + self.idle.len(), self.entries.len());
        for (key, block) in &self.published {
            assert_eq!(self.entries[block.0 as usize].key.as_ref(), Some(key));
        }
        let keyed = self.entries.iter().filter(|entry| entry.key.is_some()).count();
        assert_eq!(keyed, self.published.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_for_all_tokens_before() {
        let root = Key([0; 32]);
        let chain = Key::chain(root, &[1, 2, 3, 4, 5], 2);
        assert_eq!(chain.len(), 2);
        assert_eq!(chain[1], root.next(&[1, 2]).next(&[3, 4]));
        assert_ne!(chain[1], Key::chain(root, &[9, 2, 3, 4], 2)[1]);
        assert_ne!(chain[1], Key::chain(Key([1; 32]), &[1, 2, 3, 4], 2)[1]);
    }

    #[test]
    fn what_was_let_go_first_goes_first_and_what_is_found_stays() {
        let mut blocks = Blocks::new(3);
        let keys: Vec<Key> = (0..3).map(|n| Key([n; 32])).collect();
        let taken: Vec<Block> = (0..3).map(|_| blocks.take().unwrap()).collect();
        for (block, key) in taken.iter().zip(&keys) {
            assert!(blocks.publish(*block, *key));
        }
        assert_eq!(blocks.take(), None);
        // Released from the last to the first, so the first of the chain is the last to go.
        blocks.release_all(&taken);
        assert_eq!(blocks.find(&keys[2]), Some(taken[2]));
        assert_eq!(blocks.take(), Some(taken[1]));
        assert!(!blocks.knows(&keys[1]) && blocks.knows(&keys[0]));
        blocks.check();
    }
}
