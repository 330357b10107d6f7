//! All tensors of a model, under their names in the files.

use crate::{
    ModelConfig, ModelError, Parameters, Tensor,
    layer::{FeedForward, Layer},
    mtp::MtpModule,
    parameters::join,
    random::Normal,
};

pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
const LAYERS: &str = "model.layers";
const NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// The name of a layer; modules for multi-token prediction are layers behind the last.
pub(crate) fn layer_name(number: usize) -> String {
    format!("{LAYERS}.{number}")
}

/// A model's tensors, or their gradients: both have the same names and shapes.
#[derive(Debug, Clone)]
pub struct Weights {
    /// [vocab, hidden]
    pub(crate) embedding: Tensor,
    pub(crate) layers: Vec<Layer>,
    /// Modules for multi-token prediction; in the files they are layers behind the last.
    pub(crate) mtp: Vec<MtpModule>,
    pub(crate) norm: Tensor,
    /// [vocab, hidden]; None: the embedding.
    pub(crate) head: Option<Tensor>,
}

impl Weights {
    /// All zeros, in the shapes that the configuration asks for.
    pub fn zeros(config: &ModelConfig) -> Self {
        let table = || Tensor::zeros(&[config.vocab, config.hidden]);
        Self {
            embedding: table(),
            layers: (0..config.layers).map(|layer| Layer::zeros(config, layer)).collect(),
            mtp: (0..config.mtp_layers).map(|depth| MtpModule::zeros(config, depth)).collect(),
            norm: Tensor::zeros(&[config.hidden]),
            head: (!config.tied_embedding).then(table),
        }
    }

    /// Normal with the configuration's deviation; norms 1, the gate's biases 0. The seed decides every bit.
    pub fn random(config: &ModelConfig, seed: u64) -> Self {
        let mut weights = Self::zeros(config);
        let mut normal = Normal::new(seed);
        weights.visit_mut("", &mut |name, tensor| {
            let is_norm = tensor.shape().len() == 1;
            for x in tensor.data_mut() {
                *x = match (is_norm, is_trained(&name)) {
                    (false, _) => normal.sample() * config.initializer_range,
                    (true, trained) => f32::from(u8::from(trained)),
                };
            }
        });
        weights
    }

    /// Number of f32.
    pub fn len(&self) -> usize {
        let mut all = 0;
        self.visit("", &mut |_, tensor| all += tensor.len());
        all
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the `part`-th of `parts` equal parts of each layer's experts; the others are on other ranks.
    ///
    /// # Errors
    /// If the experts cannot be divided so.
    pub fn keep_experts(&mut self, part: usize, parts: usize) -> Result<(), ModelError> {
        let blocks =
            self.layers.iter_mut().chain(self.mtp.iter_mut().map(|module| &mut module.block));
        for layer in blocks {
            let FeedForward::Experts(moe) = &mut layer.feed_forward else { continue };
            let experts = moe.experts.len();
            if part >= parts || !experts.is_multiple_of(parts) {
                return Err(ModelError::Input(format!(
                    "{experts} routed experts cannot be divided over {parts} ranks: expected a divisor of them"
                )));
            }
            let kept = part * (experts / parts)..(part + 1) * (experts / parts);
            for (number, expert) in moe.experts.iter_mut().enumerate() {
                if !kept.contains(&number) {
                    *expert = None;
                }
            }
        }
        Ok(())
    }

    /// Visits all parts in the order in which the backward is done with their gradients ([`crate::Among::ready`]).
    pub fn in_order_of_backward(&self, ready: &mut dyn FnMut(&str, &dyn Parameters)) {
        self.behind_layers(ready);
        for (number, layer) in self.layers.iter().enumerate().rev() {
            ready(&layer_name(number), layer);
        }
        ready(EMBEDDING, &self.embedding);
    }

    /// What is done before the layers are.
    pub(crate) fn behind_layers(&self, ready: &mut dyn FnMut(&str, &dyn Parameters)) {
        if let Some(head) = &self.head {
            ready(HEAD, head);
        }
        for (depth, module) in self.mtp.iter().enumerate() {
            ready(&layer_name(self.layers.len() + depth), module);
        }
        ready(NORM, &self.norm);
    }

    pub(crate) fn head(&self) -> &Tensor {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    pub(crate) fn head_mut(&mut self) -> &mut Tensor {
        self.head.as_mut().unwrap_or(&mut self.embedding)
    }
}

impl Parameters for Weights {
    fn visit<'a>(&'a self, name: &str, each: &mut dyn FnMut(String, &'a Tensor)) {
        self.embedding.visit(&join(name, EMBEDDING), each);
        self.layers.visit(&join(name, LAYERS), each);
        for (depth, module) in self.mtp.iter().enumerate() {
            module.visit(&join(name, &layer_name(self.layers.len() + depth)), each);
        }
        self.norm.visit(&join(name, NORM), each);
        self.head.visit(&join(name, HEAD), each);
    }

    fn visit_mut<'a>(&'a mut self, name: &str, each: &mut dyn FnMut(String, &'a mut Tensor)) {
        let layers = self.layers.len();
        self.embedding.visit_mut(&join(name, EMBEDDING), each);
        self.layers.visit_mut(&join(name, LAYERS), each);
        for (depth, module) in self.mtp.iter_mut().enumerate() {
            module.visit_mut(&join(name, &layer_name(layers + depth)), each);
        }
        self.norm.visit_mut(&join(name, NORM), each);
        self.head.visit_mut(&join(name, HEAD), each);
    }
}

/// The gate's bias follows the load of the experts, not a gradient.
pub fn is_trained(name: &str) -> bool {
    !name.ends_with("e_score_correction_bias")
}
