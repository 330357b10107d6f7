//! What an answer must look like, told token by token: grammars and schemas plug in here.

/// The rules of one choice's answer. The engine asks for the allowed tokens before each, and tells which it took.
pub trait Constraint: Send {
    /// Removes from `allowed`, in which all tokens are, those that may not come next.
    ///
    /// # Errors
    /// What went wrong, in words; the choice ends with it.
    fn mask(&mut self, allowed: &mut TokenSet) -> Result<(), String>;

    /// `token` was taken; it was allowed by the last mask.
    ///
    /// # Errors
    /// As for [`Constraint::mask`].
    fn accept(&mut self, token: u32) -> Result<(), String>;

    /// Whether the answer is complete and nothing may follow.
    fn done(&self) -> bool;

    /// A copy for another choice, in the same state.
    fn boxed_clone(&self) -> Box<dyn Constraint>;
}

/// Some of a vocabulary's tokens, a bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    words: Vec<u32>,
    vocab: usize,
}

impl TokenSet {
    /// All tokens below `vocab`.
    pub fn all(vocab: usize) -> Self {
        let mut set = Self { words: vec![0; vocab.div_ceil(32)], vocab };
        set.fill();
        set
    }

    pub fn fill(&mut self) {
        self.words.fill(u32::MAX);
        self.trim();
    }

    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    pub fn insert(&mut self, token: u32) {
        if (token as usize) < self.vocab {
            self.words[token as usize / 32] |= 1 << (token % 32);
        }
    }

    pub fn remove(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 32) {
            *word &= !(1 << (token % 32));
        }
    }

    pub fn contains(&self, token: u32) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Keeps what is in `words` too: token t is bit t % 32 of word t / 32, missing words are 0.
    pub fn intersect(&mut self, words: &[u32]) {
        let others = words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter_mut().zip(others).for_each(|(word, other)| *word &= other);
    }

    /// Bits behind the vocabulary stay 0.
    fn trim(&mut self) {
        let beyond = self.vocab % 32;
        if let Some(last) = self.words.last_mut().filter(|_| beyond > 0) {
            *last &= (1 << beyond) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_and_nothing_behind_the_vocabulary() {
        let mut set = TokenSet::all(40);
        assert!(set.contains(39) && !set.contains(40) && !set.contains(4000));
        set.remove(3);
        set.remove(4000);
        set.intersect(&[0b1010]);
        assert!(set.contains(1) && !set.contains(3) && !set.contains(39));
        set.clear();
        assert!(set.is_empty());
        set.insert(40);
        assert!(set.is_empty());
    }
}
