//! The whole model: embedding, layers, norm, head; its loss and gradients.

use crate::{
    Among, Cache, Exchange, Loss, ModelConfig, ModelError, Parameters, Tensor, Tokens, Weights,
    layer::{self, FeedForward},
    linear::{linear, linear_backward},
    loss::{cross_entropy, targets},
    mla::Pass,
    norm::{rms_norm, rms_norm_backward},
    rope::{Angles, Rotary},
    weights::{EMBEDDING, layer_name},
};

#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) weights: Weights,
    pub(crate) rotary: Rotary,
    recompute: bool,
}

/// A pass through all layers, with what the backward needs.
#[derive(Debug)]
pub struct Forward {
    /// [n, hidden] before the first layer and after each.
    states: Vec<Tensor>,
    saved: Vec<layer::Saved>,
    normed: Tensor,
}

impl Forward {
    /// The embedding, then the state after each layer, the last one after the final norm; [batch * tokens, hidden].
    pub fn hidden(&self) -> impl Iterator<Item = &Tensor> {
        self.states[..self.states.len() - 1].iter().chain([&self.normed])
    }
}

impl Model {
    /// The weights must have been made for this configuration.
    pub fn new(config: ModelConfig, weights: Weights) -> Self {
        assert_eq!(weights.layers.len(), config.layers, "weights of another configuration");
        let rotary = Rotary::new(&config.rope, config.qk_rope);
        Self { config, weights, rotary, recompute: false }
    }

    /// Keeps only the states between layers for the backward, which computes the rest again (activation
    /// checkpointing; Chen et al. 2016): less memory, a third more time. The numbers are the same.
    pub fn set_recompute(&mut self, recompute: bool) {
        self.recompute = recompute;
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    pub fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// Of a model that has all its experts here.
    pub fn forward(&self, tokens: &Tokens) -> Forward {
        self.forward_among(tokens, None)
            .expect("without other ranks and with all experts nothing can fail")
    }

    /// Of a model whose experts may be divided over ranks.
    ///
    /// # Errors
    /// If one of those is gone, or this one has not its part of the experts.
    pub fn forward_among(
        &self,
        tokens: &Tokens,
        exchange: Option<&dyn Exchange>,
    ) -> Result<Forward, ModelError> {
        let angles = self.rotary.angles(0, tokens.tokens());
        let pass = self.pass(tokens, &angles, exchange);
        let mut states = vec![self.embed(tokens)];
        let mut saved = Vec::new();
        for (number, layer) in self.weights.layers.iter().enumerate() {
            let (y, mut kept) = layer.forward(pass, &states[number])?;
            if self.recompute {
                kept.forget();
            }
            states.push(y);
            saved.push(kept);
        }
        let normed = rms_norm(&states[states.len() - 1], &self.weights.norm, self.config.rms_eps);
        Ok(Forward { states, saved, normed })
    }

    fn pass<'a>(
        &'a self,
        tokens: &Tokens,
        angles: &'a Angles,
        exchange: Option<&'a dyn Exchange>,
    ) -> Pass<'a> {
        Pass { config: &self.config, angles, tokens: tokens.tokens(), exchange }
    }

    /// [batch * tokens, vocab].
    pub fn logits(&self, forward: &Forward) -> Tensor {
        linear(&forward.normed, self.weights.head())
    }

    /// Loss of a batch, and its gradients added to `grad`. MTP modules count with `mtp_weight`; 0 leaves them out.
    ///
    /// # Errors
    /// Sequences of one token, which have no next.
    pub fn step(
        &self,
        tokens: &Tokens,
        mtp_weight: f32,
        grad: &mut Weights,
    ) -> Result<Loss, ModelError> {
        let mut ready = |_: &str, _: &dyn Parameters| {};
        self.step_among(tokens, mtp_weight, grad, Among { exchange: None, ready: &mut ready })
    }

    /// As [`Self::step`], for a rank of several that train one model, each with its own part of the batch.
    ///
    /// # Errors
    /// As there; if another rank is gone, or this one has not its part of the experts.
    pub fn step_among(
        &self,
        tokens: &Tokens,
        mtp_weight: f32,
        grad: &mut Weights,
        among: Among<'_>,
    ) -> Result<Loss, ModelError> {
        if tokens.tokens() < 2 {
            let detail = "a loss needs sequences of at least 2 tokens".to_owned();
            return Err(ModelError::Input(detail));
        }
        let exchange = among.exchange;
        let forward = self.forward_among(tokens, exchange)?;
        let mut logits = self.logits(&forward);
        let main = cross_entropy(&mut logits, &targets(tokens, tokens.tokens(), 1), 1.0);
        let mut d_normed =
            linear_backward(&forward.normed, self.weights.head(), &logits, grad.head_mut());
        drop(logits);
        let mut loads: Vec<_> = forward.saved.iter().filter_map(layer::Saved::load).collect();
        let mut mtp = 0.0;
        if mtp_weight != 0.0 && !self.weights.mtp.is_empty() {
            let of = (tokens, exchange);
            let found = self.mtp_step(of, &forward.normed, mtp_weight, &mut d_normed, grad)?;
            mtp = found.mean;
            loads.extend(found.loads);
        }
        self.backward(tokens, forward, &d_normed, grad, among)?;
        Ok(Loss { main, mtp, loads })
    }

    /// From the gradient of the state after the final norm down to the embedding.
    fn backward(
        &self,
        tokens: &Tokens,
        forward: Forward,
        d_normed: &Tensor,
        grad: &mut Weights,
        Among { exchange, ready }: Among<'_>,
    ) -> Result<(), ModelError> {
        let angles = self.rotary.angles(0, tokens.tokens());
        let pass = self.pass(tokens, &angles, exchange);
        let Forward { mut states, mut saved, .. } = forward;
        let last = states.pop().expect("the embedding at least");
        let eps = self.config.rms_eps;
        let mut d = rms_norm_backward(&last, &self.weights.norm, eps, d_normed, &mut grad.norm);
        grad.behind_layers(ready);
        let layers = self.weights.layers.iter().zip(&mut grad.layers);
        for (number, (layer, grad)) in layers.enumerate().rev() {
            // Popped, so that each layer's memory is free as soon as it is done.
            let (x, saved) =
                states.pop().zip(saved.pop()).expect("a state and a pass for each layer");
            d = layer.backward(pass, &x, saved, d, grad)?;
            ready(&layer_name(number), grad);
        }
        self.embed_backward(tokens, &d, grad);
        ready(EMBEDDING, &grad.embedding);
        Ok(())
    }

    /// Logits of tokens behind those in the cache, [batch * tokens, vocab]; the cache then has them too.
    ///
    /// # Errors
    /// A cache of another number of sequences.
    pub fn decode(&self, tokens: &Tokens, cache: &mut Cache) -> Result<Tensor, ModelError> {
        if cache.batch() != tokens.batch() {
            let (found, expected) = (tokens.batch(), cache.batch());
            let detail = format!("{found} sequences for a cache of {expected}, expected as many");
            return Err(ModelError::Input(detail));
        }
        let angles = self.rotary.angles(cache.len(), tokens.tokens());
        let pass = self.pass(tokens, &angles, None);
        // A prompt alone is cheaper in the expanded form; both give the same.
        let first = cache.is_empty();
        let mut x = self.embed(tokens);
        for (layer, cache) in self.weights.layers.iter().zip(&mut cache.layers) {
            x = if first {
                let (y, products) = layer.compute(pass, &x)?;
                cache.append(&products.attention.latent);
                y
            } else {
                layer.decode(pass, &x, cache)?
            };
        }
        cache.grow(tokens.tokens());
        let normed = rms_norm(&x, &self.weights.norm, self.config.rms_eps);
        Ok(linear(&normed, self.weights.head()))
    }

    /// Moves the gates' biases towards equal load, by the loads of a step (summed over all ranks).
    ///
    /// # Errors
    /// Loads that are not one list for each layer with experts, MTP modules behind them.
    pub fn balance(&mut self, loads: &[Vec<u64>], speed: f32) -> Result<(), ModelError> {
        let blocks =
            self.weights.layers.iter_mut().chain(self.weights.mtp.iter_mut().map(|m| &mut m.block));
        let mut gates: Vec<_> = blocks
            .filter_map(|layer| match &mut layer.feed_forward {
                FeedForward::Dense(_) => None,
                FeedForward::Experts(experts) => Some(experts),
            })
            .collect();
        let experts = self.config.routed_experts;
        if loads.len() > gates.len() || loads.iter().any(|load| load.len() != experts) {
            let (found, expected) = (loads.len(), gates.len());
            let detail = format!(
                "loads of {found} layers, expected at most {expected} of {experts} experts each"
            );
            return Err(ModelError::Input(detail));
        }
        gates.iter_mut().zip(loads).for_each(|(gate, load)| gate.balance(load, speed));
        Ok(())
    }

    pub(crate) fn embed(&self, tokens: &Tokens) -> Tensor {
        self.embed_ids(tokens.ids().iter().copied())
    }

    /// [ids, hidden]; each id must lie within the vocabulary.
    pub(crate) fn embed_ids(&self, ids: impl Iterator<Item = u32>) -> Tensor {
        let rows: Vec<f32> =
            ids.flat_map(|id| self.weights.embedding.row(id as usize)).copied().collect();
        Tensor::new(&[rows.len() / self.config.hidden, self.config.hidden], rows)
            .expect("a row a token")
    }

    pub(crate) fn embed_backward(&self, tokens: &Tokens, d: &Tensor, grad: &mut Weights) {
        for (row, &id) in tokens.ids().iter().enumerate() {
            let into = grad.embedding.row_mut(id as usize);
            into.iter_mut().zip(d.row(row)).for_each(|(sum, d)| *sum += d);
        }
    }
}
