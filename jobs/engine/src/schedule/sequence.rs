//! One sequence as the schedule knows it.

use ff2_model::Block;

use crate::blocks::Key;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(pub(crate) u64);

#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    pub(crate) id: Id,
    /// Prompt and answer so far.
    pub(crate) tokens: Vec<u32>,
    /// How many of them are in the blocks.
    pub(crate) computed: usize,
    pub(crate) blocks: Vec<Block>,
    /// Choices that will share this one's prompt.
    pub(crate) forks: usize,
    /// Tokens found in the prefix cache when it first started.
    pub(crate) cached: Option<usize>,
    /// Whether its prompt may come from the prefix cache.
    pub(crate) reusable: bool,
    /// Guess at the token behind the last.
    pub(crate) draft: Option<u32>,
    /// Of the full blocks, as far as they are known, and how many are published.
    pub(crate) keys: Vec<Key>,
    pub(crate) published: usize,
}

impl Sequence {
    pub(crate) fn new(id: Id, prompt: Vec<u32>, forks: usize, reusable: bool) -> Self {
        Self {
            id,
            tokens: prompt,
            computed: 0,
            blocks: Vec::new(),
            forks,
            cached: None,
            reusable,
            draft: None,
            keys: Vec::new(),
            published: 0,
        }
    }

    /// Known tokens that are not in the blocks.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Back to where it has no block; they are the caller's.
    pub(crate) fn give_way(&mut self) {
        self.blocks.clear();
        self.computed = 0;
        self.published = 0;
        self.draft = None;
    }
}
