//! What runs in which step. Pure: tokens and block numbers in, a plan out; no pages, no clock, no threads.
//!
//! Sequences run in the order of their arrival. Each step has one token of every sequence that has its prompt behind
//! it, and of the prompts as many tokens as a chunk has. When blocks run out, the newest sequence gives all of its own
//! back and waits, to be computed again; so the oldest always goes on, and everything ends.

mod sequence;

use std::collections::VecDeque;

use ff2_model::Block;

use crate::blocks::{Blocks, Key};
pub(crate) use sequence::{Id, Sequence};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) block_tokens: usize,
    /// Sequences under way, forks that are to come among them.
    pub(crate) max_running: usize,
    /// Prompt tokens of a step.
    pub(crate) prefill_chunk: usize,
    /// With more sequences than this under way, no drafts are tried: a full batch has no time to spare.
    pub(crate) draft_running_max: usize,
}

/// One sequence's part of a step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Work {
    pub(crate) id: Id,
    pub(crate) from: usize,
    /// Tokens to compute; behind the known ones a drafted one, if `drafted`.
    pub(crate) tokens: Vec<u32>,
    pub(crate) blocks: Vec<Block>,
    /// Whether the last known token is among them, so that a new one follows.
    pub(crate) samples: bool,
    pub(crate) drafted: bool,
    /// Whether it belongs to a prompt, or to what is computed again.
    pub(crate) prefill: bool,
}

/// What the next step does: first the copies in their order, then the work.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) copies: Vec<(Block, Block)>,
    pub(crate) work: Vec<Work>,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) preemptions: u64,
    pub(crate) prefix_queries: u64,
    pub(crate) prefix_hits: u64,
}

#[derive(Debug)]
pub(crate) struct Schedule {
    limits: Limits,
    root: Key,
    pub(crate) blocks: Blocks,
    waiting: VecDeque<Sequence>,
    /// Oldest first.
    running: Vec<Sequence>,
    pub(crate) counts: Counts,
}

impl Schedule {
    /// Keys of the prefix cache start from `root`.
    pub(crate) fn new(limits: Limits, blocks: usize, root: Key) -> Self {
        Self {
            limits,
            root,
            blocks: Blocks::new(blocks),
            waiting: VecDeque::new(),
            running: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// A sequence and all of its forks must fit into the blocks one at a time: the caller's check.
    pub(crate) fn add(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    pub(crate) fn get(&self, id: Id) -> Option<&Sequence> {
        self.running.iter().chain(&self.waiting).find(|sequence| sequence.id == id)
    }

    /// The next step. Empty only if nothing waits or runs.
    pub(crate) fn plan(&mut self) -> Plan {
        let mut plan = Plan::default();
        let mut prefill_left = self.limits.prefill_chunk;
        let mut at = 0;
        while at < self.running.len() || (prefill_left > 0 && self.admit()) {
            let sequence = &self.running[at];
            let pending = sequence.pending();
            let prefill = pending > 1 || sequence.computed == 0;
            let count = if prefill { pending.min(prefill_left) } else { 1 };
            if count == 0 {
                at += 1;
                continue;
            }
            if !self.make_room(at, count, &mut plan.copies) {
                // This one was the newest and has given way; behind it there is none.
                break;
            }
            if prefill {
                prefill_left -= count;
            }
            let work = self.work(at, count, prefill, &mut plan.copies);
            plan.work.push(work);
            at += 1;
        }
        if cfg!(debug_assertions) {
            self.check();
        }
        plan
    }

    fn work(
        &mut self,
        at: usize,
        count: usize,
        prefill: bool,
        copies: &mut Vec<(Block, Block)>,
    ) -> Work {
        let few = self.running.len() <= self.limits.draft_running_max;
        // Nobody gives way for a draft.
        let draft = self.running[at].draft.take().filter(|_| few && !prefill);
        let draft = draft.filter(|_| self.grow(at, count + 1, copies));
        let sequence = &self.running[at];
        let known = sequence.computed + count;
        let mut tokens = sequence.tokens[sequence.computed..known].to_vec();
        tokens.extend(draft);
        Work {
            id: sequence.id,
            from: sequence.computed,
            tokens,
            blocks: sequence.blocks.clone(),
            samples: known == sequence.tokens.len(),
            drafted: draft.is_some(),
            prefill,
        }
    }

    /// Starts the first that waits, if it has a place and blocks.
    fn admit(&mut self) -> bool {
        let places: usize = self.running.iter().map(|sequence| 1 + sequence.forks).sum();
        let Some(next) = self.waiting.front_mut() else { return false };
        if places + 1 + next.forks > self.limits.max_running {
            return false;
        }
        let found = find_prefix(&mut self.blocks, self.root, next, self.limits.block_tokens);
        let needed = (next.tokens.len() + 1).div_ceil(self.limits.block_tokens) - found.len();
        // One that runs alone may count on all blocks; its caller has checked that they are enough.
        if needed > self.blocks.available() && !self.running.is_empty() {
            self.blocks.release_all(&found);
            return false;
        }
        let mut sequence = self.waiting.pop_front().expect("just seen");
        sequence.computed = found.len() * self.limits.block_tokens;
        if sequence.reusable {
            self.counts.prefix_queries += sequence.tokens.len() as u64;
            self.counts.prefix_hits += sequence.computed as u64;
        }
        sequence.cached.get_or_insert(sequence.computed);
        sequence.published = found.len();
        sequence.blocks = found;
        self.running.push(sequence);
        true
    }

    /// Gives the sequence at `at` blocks of its own for `count` more tokens; newer ones give way for it. False if it
    /// had to give way itself.
    fn make_room(&mut self, at: usize, count: usize, copies: &mut Vec<(Block, Block)>) -> bool {
        while !self.grow(at, count, copies) {
            let mut newest = self.running.pop().expect("there is one at least");
            self.blocks.release_all(&newest.blocks);
            newest.give_way();
            self.waiting.push_front(newest);
            self.counts.preemptions += 1;
            if self.running.len() == at {
                return false;
            }
        }
        true
    }

    /// False if there are no blocks left; what was taken stays with the sequence.
    fn grow(&mut self, at: usize, count: usize, copies: &mut Vec<(Block, Block)>) -> bool {
        let sequence = &mut self.running[at];
        let each = self.limits.block_tokens;
        // Only a block begun before a fork is both written to and shared.
        if let Some(block) = sequence.blocks.get_mut(sequence.computed / each)
            && self.blocks.is_shared(*block)
        {
            let Some(own) = self.blocks.take() else { return false };
            copies.push((*block, own));
            self.blocks.release(*block);
            *block = own;
        }
        while sequence.blocks.len() * each < sequence.computed + count {
            let Some(block) = self.blocks.take() else { return false };
            sequence.blocks.push(block);
        }
        true
    }

    /// `count` more tokens of a running sequence are in the pages. Returns blocks that are full and findable since.
    pub(crate) fn computed(&mut self, id: Id, count: usize) -> Vec<(Block, Key)> {
        let (root, each) = (self.root, self.limits.block_tokens);
        let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == id) else {
            return Vec::new();
        };
        sequence.computed += count;
        let mut new = Vec::new();
        while (sequence.published + 1) * each <= sequence.computed {
            let number = sequence.published;
            let before = number.checked_sub(1).map_or(root, |last| sequence.keys[last]);
            let key = before.next(&sequence.tokens[number * each..(number + 1) * each]);
            sequence.keys.truncate(number);
            sequence.keys.push(key);
            if self.blocks.publish(sequence.blocks[number], key) {
                new.push((sequence.blocks[number], key));
            }
            sequence.published += 1;
        }
        new
    }

    /// The next token of a running sequence, and what may come behind it.
    pub(crate) fn push(&mut self, id: Id, token: u32) {
        if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == id) {
            sequence.tokens.push(token);
        }
    }

    pub(crate) fn set_draft(&mut self, id: Id, token: u32) {
        if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == id) {
            sequence.draft = Some(token);
        }
    }

    /// Another sequence with the same tokens and blocks, in a place that was kept for it.
    pub(crate) fn fork(&mut self, id: Id, child: Id) {
        let Some(at) = self.running.iter().position(|sequence| sequence.id == id) else { return };
        let parent = &mut self.running[at];
        parent.forks = parent.forks.checked_sub(1).expect("as many forks as were announced");
        let fork = Sequence { id: child, forks: 0, draft: None, ..parent.clone() };
        fork.blocks.iter().for_each(|block| self.blocks.share(*block));
        self.running.insert(at + 1, fork);
    }

    /// Ends a sequence, wherever it is.
    pub(crate) fn finish(&mut self, id: Id) {
        self.waiting.retain(|sequence| sequence.id != id);
        if let Some(at) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = self.running.remove(at);
            self.blocks.release_all(&sequence.blocks);
        }
    }

    /// What holds between steps.
    pub(crate) fn check(&self) {
        self.blocks.check();
        let places: usize = self.running.iter().map(|sequence| 1 + sequence.forks).sum();
        assert!(places <= self.limits.max_running);
        for sequence in &self.running {
            assert!(sequence.blocks.len() * self.limits.block_tokens >= sequence.computed);
        }
        assert!(self.waiting.iter().all(|sequence| sequence.blocks.is_empty()));
    }
}

/// The longest run of published blocks that the sequence starts with, referenced. Its last token is always computed,
/// as its logits are wanted.
fn find_prefix(
    blocks: &mut Blocks,
    root: Key,
    sequence: &mut Sequence,
    block_tokens: usize,
) -> Vec<Block> {
    if !sequence.reusable {
        return Vec::new();
    }
    let full = (sequence.tokens.len() - 1) / block_tokens * block_tokens;
    if sequence.keys.len() < full / block_tokens {
        sequence.keys = Key::chain(root, &sequence.tokens[..full], block_tokens);
    }
    let keys = &sequence.keys[..full / block_tokens];
    keys.iter().map_while(|key| blocks.find(key)).collect()
}

#[cfg(test)]
mod tests;
