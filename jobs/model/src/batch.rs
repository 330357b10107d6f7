//! One step of many sequences at once, each with as many new tokens as it likes: what a server runs. Dense products
//! take the tokens of all; attention looks at each sequence's own pages.

use crate::{
    Block, Model, ModelError, Pages, Tensor, layer::Layer, linear::linear, mla::Pass,
    norm::rms_norm, pages::LayerPages,
};

/// New tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    pub tokens: &'a [u32],
    /// Position of the first: so many tokens of the sequence are in its blocks.
    pub from: usize,
    /// The sequence's blocks, with room for the new tokens. No other span of the step may have those that are
    /// written.
    pub blocks: &'a [Block],
    /// Logits wanted of so many last tokens.
    pub logits: usize,
}

/// What a step computed.
#[derive(Debug)]
pub struct Step {
    /// [all tokens, hidden] after the last norm.
    pub hidden: Tensor,
    /// [all that were wanted, vocab], span after span.
    pub logits: Tensor,
}

impl Model {
    /// Computes the spans' tokens and puts them into the pages.
    ///
    /// # Errors
    /// A token outside the vocabulary, blocks too few or not there, more logits than tokens.
    pub fn advance(&self, spans: &[Span<'_>], pages: &mut Pages) -> Result<Step, ModelError> {
        self.check_spans(spans, pages)?;
        let ids = spans.iter().flat_map(|span| span.tokens);
        let mut x = self.embed_ids(ids.copied());
        let angles = self.rotary.angles_at(positions(spans));
        let pass = Pass { config: &self.config, angles: &angles, tokens: x.rows() };
        for (number, layer) in self.weights.layers.iter().enumerate() {
            x = layer.advance(pass, &x, spans, pages.layer_mut(number));
        }
        let hidden = rms_norm(&x, &self.weights.norm, self.config.rms_eps);
        let logits = self.wanted_logits(&hidden, spans);
        Ok(Step { hidden, logits })
    }

    /// Logits of the tokens after next, by the first module for multi-token prediction. `hidden` is what
    /// [`Model::advance`] computed for each position of the spans, [all tokens, hidden]; a span's tokens are those
    /// *behind* these positions. The module's own pages get the positions.
    ///
    /// # Errors
    /// As [`Model::advance`]; a model without such a module; another number of states than of tokens.
    pub fn draft(
        &self,
        spans: &[Span<'_>],
        hidden: &Tensor,
        pages: &mut Pages,
    ) -> Result<Tensor, ModelError> {
        self.check_spans(spans, pages)?;
        let Some(module) = self.weights.mtp.first() else {
            let detail = "this model has no module for multi-token prediction".to_owned();
            return Err(ModelError::Input(detail));
        };
        let embedded = self.embed_ids(spans.iter().flat_map(|span| span.tokens).copied());
        if hidden.shape() != embedded.shape() {
            let (found, expected) = (hidden.shape(), embedded.shape());
            let detail = format!("states of shape {found:?}, expected {expected:?}");
            return Err(ModelError::Input(detail));
        }
        let angles = self.rotary.angles_at(positions(spans));
        let pass = Pass { config: &self.config, angles: &angles, tokens: embedded.rows() };
        let x = module.join(&self.config, &embedded, hidden);
        let y = module.block.advance(pass, &x, spans, pages.layer_mut(self.config.layers));
        Ok(self.wanted_logits(&module.norm_for_head(&self.config, &y), spans))
    }

    fn wanted_logits(&self, hidden: &Tensor, spans: &[Span<'_>]) -> Tensor {
        let (mut rows, mut end) = (Vec::new(), 0);
        for span in spans {
            end += span.tokens.len();
            rows.extend((end - span.logits..end).flat_map(|row| hidden.row(row)));
        }
        let shape = [rows.len() / self.config.hidden, self.config.hidden];
        let wanted = Tensor::new(&shape, rows).expect("whole rows");
        linear(&wanted, self.weights.head())
    }

    fn check_spans(&self, spans: &[Span<'_>], pages: &Pages) -> Result<(), ModelError> {
        let wrong = |detail: String| Err(ModelError::Input(detail));
        for span in spans {
            let (len, room) = (span.tokens.len(), span.blocks.len() * pages.block_tokens());
            if len == 0 || span.logits > len {
                return wrong(format!(
                    "logits of {} among {len} new tokens, expected at least 1 token and no more logits",
                    span.logits
                ));
            }
            if span.from.checked_add(len).is_none_or(|end| end > room) {
                let from = span.from;
                return wrong(format!("{len} tokens from {from} on in blocks for {room}"));
            }
            if let Some(block) = span.blocks.iter().find(|b| b.0 as usize >= pages.blocks()) {
                let blocks = pages.blocks();
                return wrong(format!("block {}, expected less than {blocks}", block.0));
            }
            if let Some(id) = span.tokens.iter().find(|id| **id as usize >= self.config.vocab) {
                let vocab = self.config.vocab;
                return wrong(format!("token {id}, expected less than the vocabulary's {vocab}"));
            }
        }
        Ok(())
    }
}

impl Layer {
    fn advance(
        &self,
        pass: Pass<'_>,
        x: &Tensor,
        spans: &[Span<'_>],
        pages: &mut LayerPages,
    ) -> Tensor {
        self.infer(pass, x, |attention, x| attention.attend_pages(pass, x, spans, pages))
    }
}

fn positions<'a>(spans: &'a [Span<'_>]) -> impl Iterator<Item = usize> + 'a {
    spans.iter().flat_map(|span| span.from..span.from + span.tokens.len())
}
