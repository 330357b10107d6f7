//! What goes into a model.

use crate::ModelError;

/// Sequences of equal length, all below the model's vocabulary: [batch, tokens].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<u32>,
    len: usize,
    /// One a token; None: all are learned.
    learned: Option<Vec<bool>>,
}

impl Tokens {
    /// `ids` has the sequences one after the other, `len` tokens each.
    ///
    /// # Errors
    /// An empty input, a length that does not divide it, or an id outside the vocabulary.
    pub fn new(ids: Vec<u32>, len: usize, vocab: usize) -> Result<Self, ModelError> {
        if len == 0 || ids.is_empty() || !ids.len().is_multiple_of(len) {
            let detail = format!("input_ids: {} ids are no sequences of {len} tokens", ids.len());
            return Err(ModelError::Input(detail));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
            let detail =
                format!("input_ids: token {id}, expected less than the vocabulary's {vocab}");
            return Err(ModelError::Input(detail));
        }
        Ok(Self { ids, len, learned: None })
    }

    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Only where this is true, one a token, does a loss ask for the token: answers of a conversation, not questions.
    #[must_use]
    pub fn learned_where(mut self, learned: Vec<bool>) -> Self {
        assert_eq!(learned.len(), self.ids.len(), "a mark a token");
        self.learned = Some(learned);
        self
    }

    /// Whether a loss asks for this token of all.
    pub fn is_learned(&self, token: usize) -> bool {
        self.learned.as_ref().is_none_or(|learned| learned[token])
    }

    /// Tokens a sequence.
    pub fn tokens(&self) -> usize {
        self.len
    }

    pub fn batch(&self) -> usize {
        self.ids.len() / self.len
    }

    /// Tokens `from..to` of every sequence; the range must lie within the sequences and not be empty.
    pub fn range(&self, from: usize, to: usize) -> Self {
        assert!(from < to && to <= self.len, "tokens {from}..{to} of {}", self.len);
        let ids = self.ids.chunks(self.len).flat_map(|s| &s[from..to]).copied().collect();
        let learned = self
            .learned
            .as_ref()
            .map(|learned| learned.chunks(self.len).flat_map(|s| &s[from..to]).copied().collect());
        Self { ids, len: to - from, learned }
    }
}
