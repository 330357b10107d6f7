//! What a model makes of a text, without learning from it.

use crate::{
    Model, ModelError, Tokens,
    loss::{cross_entropies, targets},
};

impl Model {
    /// -log p of each next token in nats, [batch, tokens - 1]; 0 where a token is not learned.
    ///
    /// # Errors
    /// Sequences of one token, which have no next.
    pub fn losses(&self, tokens: &Tokens) -> Result<Vec<f64>, ModelError> {
        let len = tokens.tokens();
        if len < 2 {
            let detail = "a loss needs sequences of at least 2 tokens".to_owned();
            return Err(ModelError::Input(detail));
        }
        let mut logits = self.logits(&self.forward(tokens));
        let losses = cross_entropies(&mut logits, &targets(tokens, len, 1), 0.0);
        // The last row of a sequence predicts what is not there.
        Ok(losses.chunks(len).flat_map(|sequence| &sequence[..len - 1]).copied().collect())
    }
}
