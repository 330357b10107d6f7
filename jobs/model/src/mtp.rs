//! Multi-token prediction (DeepSeek-V3 report, section 2.2): module k sees the state of token i and the embedding of
//! token i + k, and predicts token i + k + 1. Embedding and head are the main model's.

use crate::{
    Exchange, Model, ModelConfig, ModelError, Tensor, Tokens,
    layer::{self, Layer},
    linear::{linear, linear_backward},
    loss::{cross_entropy, targets},
    mla::Pass,
    norm::{rms_norm, rms_norm_backward},
    parameters::parameters,
    weights::Weights,
};

#[derive(Debug, Clone)]
pub(crate) struct MtpModule {
    embedding_norm: Tensor,
    hidden_norm: Tensor,
    /// [hidden, 2 hidden], the embedding's half first.
    join: Tensor,
    pub(crate) block: Layer,
    head_norm: Tensor,
}

parameters!(MtpModule {
    embedding_norm: "enorm.weight",
    hidden_norm: "hnorm.weight",
    join: "eh_proj.weight",
    block: "",
    head_norm: "shared_head.norm.weight",
});

struct Saved {
    embedded: Tensor,
    hidden: Tensor,
    joined: Tensor,
    block_in: Tensor,
    block: layer::Saved,
    block_out: Tensor,
    normed: Tensor,
}

impl MtpModule {
    pub(crate) fn zeros(config: &ModelConfig, depth: usize) -> Self {
        Self {
            embedding_norm: Tensor::zeros(&[config.hidden]),
            hidden_norm: Tensor::zeros(&[config.hidden]),
            join: Tensor::zeros(&[config.hidden, 2 * config.hidden]),
            block: Layer::zeros(config, config.layers + depth),
            head_norm: Tensor::zeros(&[config.hidden]),
        }
    }

    fn forward(
        &self,
        pass: Pass<'_>,
        embedded: Tensor,
        hidden: Tensor,
    ) -> Result<Saved, ModelError> {
        let joined = self.halves(pass.config, &embedded, &hidden);
        let block_in = linear(&joined, &self.join);
        let (block_out, block) = self.block.forward(pass, &block_in)?;
        let normed = self.norm_for_head(pass.config, &block_out);
        Ok(Saved { embedded, hidden, joined, block_in, block, block_out, normed })
    }

    /// What the block gets of embeddings and states, [n, hidden] each.
    pub(crate) fn join(&self, c: &ModelConfig, embedded: &Tensor, hidden: &Tensor) -> Tensor {
        linear(&self.halves(c, embedded, hidden), &self.join)
    }

    pub(crate) fn norm_for_head(&self, c: &ModelConfig, block_out: &Tensor) -> Tensor {
        rms_norm(block_out, &self.head_norm, c.rms_eps)
    }

    /// [n, 2 hidden]: both, normed, side by side.
    fn halves(&self, c: &ModelConfig, embedded: &Tensor, hidden: &Tensor) -> Tensor {
        let mut joined = Tensor::zeros(&[hidden.rows(), 2 * c.hidden]);
        let halves = [
            rms_norm(embedded, &self.embedding_norm, c.rms_eps),
            rms_norm(hidden, &self.hidden_norm, c.rms_eps),
        ];
        for row in 0..hidden.rows() {
            let (left, right) = joined.row_mut(row).split_at_mut(c.hidden);
            left.copy_from_slice(halves[0].row(row));
            right.copy_from_slice(halves[1].row(row));
        }
        joined
    }

    /// From gradients of what the head got and of what the next module got to those of embedding and hidden state.
    fn backward(
        &self,
        pass: Pass<'_>,
        saved: Saved,
        d_normed: &Tensor,
        d_next: Option<&Tensor>,
        grad: &mut Self,
    ) -> Result<(Tensor, Tensor), ModelError> {
        let (c, width) = (pass.config, pass.config.hidden);
        let mut d_out = rms_norm_backward(
            &saved.block_out,
            &self.head_norm,
            c.rms_eps,
            d_normed,
            &mut grad.head_norm,
        );
        if let Some(d_next) = d_next {
            add_truncated(&mut d_out, d_next, pass.tokens);
        }
        let d_in =
            self.block.backward(pass, &saved.block_in, saved.block, d_out, &mut grad.block)?;
        let d_joined = linear_backward(&saved.joined, &self.join, &d_in, &mut grad.join);
        let half = |from: usize| {
            let rows = (0..d_joined.rows()).flat_map(|row| &d_joined.row(row)[from..from + width]);
            Tensor::new(&[d_joined.rows(), width], rows.copied().collect())
                .expect("half of the columns")
        };
        let d_embedded = rms_norm_backward(
            &saved.embedded,
            &self.embedding_norm,
            c.rms_eps,
            &half(0),
            &mut grad.embedding_norm,
        );
        let d_hidden = rms_norm_backward(
            &saved.hidden,
            &self.hidden_norm,
            c.rms_eps,
            &half(width),
            &mut grad.hidden_norm,
        );
        Ok((d_embedded, d_hidden))
    }
}

/// Loss, its share of the gradient of the main model's normed state, and the load of the experts.
pub(crate) struct MtpLoss {
    pub(crate) mean: f64,
    pub(crate) loads: Vec<Vec<u64>>,
}

impl Model {
    /// Adds the modules' gradients, times `weight` / modules, to `grad` and to `d_normed`, that of the main model's
    /// state after its last norm.
    pub(crate) fn mtp_step(
        &self,
        (tokens, exchange): (&Tokens, Option<&dyn Exchange>),
        normed: &Tensor,
        weight: f32,
        d_normed: &mut Tensor,
        grad: &mut Weights,
    ) -> Result<MtpLoss, ModelError> {
        // A module needs one token for its embedding and one to predict.
        let depths = self.weights.mtp.len().min(tokens.tokens().saturating_sub(2));
        let share = weight / depths.max(1) as f32;
        let angles = self.rotary.angles(0, tokens.tokens());
        let pass = |depth: usize| Pass {
            config: &self.config,
            angles: &angles,
            tokens: tokens.tokens() - depth - 1,
            exchange,
        };
        let mut passed: Vec<Saved> = Vec::new();
        for (depth, module) in self.weights.mtp[..depths].iter().enumerate() {
            let len = pass(depth).tokens;
            let (before, before_len) =
                passed.last().map_or((normed, tokens.tokens()), |last| (&last.block_out, len + 1));
            let hidden = truncated(before, before_len, len);
            let embedded = self.embed(&tokens.range(depth + 1, tokens.tokens()));
            passed.push(module.forward(pass(depth), embedded, hidden)?);
        }
        let (mut total, mut d_next) = (0.0, None);
        let mut loads: Vec<_> = passed.iter().filter_map(|saved| saved.block.load()).collect();
        for (depth, saved) in passed.into_iter().enumerate().rev() {
            let mut logits = linear(&saved.normed, self.weights.head());
            let targets = targets(tokens, pass(depth).tokens, depth + 2);
            total += cross_entropy(&mut logits, &targets, share);
            let d_head =
                linear_backward(&saved.normed, self.weights.head(), &logits, grad.head_mut());
            let module = &self.weights.mtp[depth];
            let (d_embedded, d_hidden) = module.backward(
                pass(depth),
                saved,
                &d_head,
                d_next.as_ref(),
                &mut grad.mtp[depth],
            )?;
            self.embed_backward(&tokens.range(depth + 1, tokens.tokens()), &d_embedded, grad);
            d_next = Some(d_hidden);
        }
        if let Some(d_hidden) = d_next {
            add_truncated(d_normed, &d_hidden, tokens.tokens());
        }
        loads.truncate(depths);
        Ok(MtpLoss { mean: total / depths.max(1) as f64, loads })
    }
}

/// The first `len` rows of every sequence of `from_len`.
fn truncated(all: &Tensor, from_len: usize, len: usize) -> Tensor {
    let width = all.cols();
    let rows: Vec<f32> = all
        .data()
        .chunks(from_len * width)
        .flat_map(|sequence| &sequence[..len * width])
        .copied()
        .collect();
    Tensor::new(&[rows.len() / width, width], rows).expect("whole rows")
}

/// Adds to the first rows of every sequence of `len`, as many as `part` has for it.
fn add_truncated(all: &mut Tensor, part: &Tensor, len: usize) {
    let width = all.cols();
    let sequences = all.rows() / len;
    let part_len = part.data().len() / sequences;
    for (all, part) in all.data_mut().chunks_mut(len * width).zip(part.data().chunks(part_len)) {
        all.iter_mut().zip(part).for_each(|(sum, d)| *sum += d);
    }
}
