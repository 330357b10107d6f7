//! All tensors of a model, under their names in the files.

use crate::{
    ModelConfig, Parameters, Tensor, layer::Layer, mtp::MtpModule, parameters::join, random::Normal,
};

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
        self.visit("", &mut |_, tensor| all += tensor.data().len());
        all
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        self.embedding.visit(&join(name, "model.embed_tokens.weight"), each);
        self.layers.visit(&join(name, "model.layers"), each);
        for (depth, module) in self.mtp.iter().enumerate() {
            module.visit(&join(name, &format!("model.layers.{}", self.layers.len() + depth)), each);
        }
        self.norm.visit(&join(name, "model.norm.weight"), each);
        self.head.visit(&join(name, "lm_head.weight"), each);
    }

    fn visit_mut<'a>(&'a mut self, name: &str, each: &mut dyn FnMut(String, &'a mut Tensor)) {
        let layers = self.layers.len();
        self.embedding.visit_mut(&join(name, "model.embed_tokens.weight"), each);
        self.layers.visit_mut(&join(name, "model.layers"), each);
        for (depth, module) in self.mtp.iter_mut().enumerate() {
            module.visit_mut(&join(name, &format!("model.layers.{}", layers + depth)), each);
        }
        self.norm.visit_mut(&join(name, "model.norm.weight"), each);
        self.head.visit_mut(&join(name, "lm_head.weight"), each);
    }
}

/// The gate's bias follows the load of the experts, not a gradient.
pub fn is_trained(name: &str) -> bool {
    !name.ends_with("e_score_correction_bias")
}
