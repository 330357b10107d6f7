//! Text from a model, token by token.

use crate::{Cache, Model, ModelError, Tensor, Tokens};

impl Model {
    /// The likeliest `count` tokens behind each sequence, [batch, count]; of equals the first.
    ///
    /// # Errors
    /// None that a caller can cause; those of [`Model::decode`].
    pub fn greedy(&self, prompt: &Tokens, count: usize) -> Result<Vec<Vec<u32>>, ModelError> {
        let mut cache = Cache::new(&self.config, prompt.batch());
        let mut texts = vec![Vec::with_capacity(count); prompt.batch()];
        let mut next = prompt.clone();
        for _ in 0..count {
            let logits = self.decode(&next, &mut cache)?;
            let ids: Vec<u32> =
                (0..next.batch()).map(|s| largest(&logits, (s + 1) * next.tokens() - 1)).collect();
            texts.iter_mut().zip(&ids).for_each(|(text, id)| text.push(*id));
            next = Tokens::new(ids, 1, self.config.vocab)?;
        }
        Ok(texts)
    }
}

fn largest(logits: &Tensor, row: usize) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.row(row).iter().enumerate() {
        if *logit > logits.row(row)[best] {
            best = id;
        }
    }
    u32::try_from(best).expect("a vocabulary is below 2^24")
}
