//! What a model makes of a text, without learning from it.

use crate::{
    Exchange, Model, ModelError, Tokens,
    loss::{cross_entropies, targets},
};

impl Model {
    /// -log p of each next token in nats, [batch, tokens - 1]; 0 where a token is not learned.
    ///
    /// # Errors
    /// Sequences of one token, which have no next.
    pub fn losses(&self, tokens: &Tokens) -> Result<Vec<f64>, ModelError> {
        self.losses_among(tokens, None)
    }

    /// The same of a model whose experts are divided over ranks, which all pass the same number of texts.
    ///
    /// # Errors
    /// As there, and a rank that is gone.
    pub fn losses_among(
        &self,
        tokens: &Tokens,
        exchange: Option<&dyn Exchange>,
    ) -> Result<Vec<f64>, ModelError> {
        let len = tokens.tokens();
        if len < 2 {
            let detail = "a loss needs sequences of at least 2 tokens".to_owned();
            return Err(ModelError::Input(detail));
        }
        let mut logits = self.logits(&self.forward_among(tokens, exchange)?);
        let losses = cross_entropies(&mut logits, &targets(tokens, len, 1), 0.0);
        // The last row of a sequence predicts what is not there.
        Ok(losses.chunks(len).flat_map(|sequence| &sequence[..len - 1]).copied().collect())
    }
}
