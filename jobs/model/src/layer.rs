//! One decoder block: x + attention(norm(x)), then x + feed-forward(norm(x)).

use crate::{
    ModelConfig, ModelError, Parameters, Tensor,
    cache::LayerCache,
    experts::{self, Moe},
    mla::{self, Mla, Pass},
    norm::{rms_norm, rms_norm_backward},
    parameters::parameters,
    swiglu::{self, SwiGlu},
};

#[derive(Debug, Clone)]
pub(crate) struct Layer {
    attention_norm: Tensor,
    pub(crate) attention: Mla,
    feed_forward_norm: Tensor,
    pub(crate) feed_forward: FeedForward,
}

parameters!(Layer {
    attention_norm: "input_layernorm.weight",
    attention: "self_attn",
    feed_forward_norm: "post_attention_layernorm.weight",
    feed_forward: "mlp",
});

#[derive(Debug, Clone)]
pub(crate) enum FeedForward {
    Dense(SwiGlu),
    Experts(Moe),
}

impl Parameters for FeedForward {
    fn visit<'a>(&'a self, name: &str, each: &mut dyn FnMut(String, &'a Tensor)) {
        match self {
            Self::Dense(dense) => dense.visit(name, each),
            Self::Experts(experts) => experts.visit(name, each),
        }
    }

    fn visit_mut<'a>(&'a mut self, name: &str, each: &mut dyn FnMut(String, &'a mut Tensor)) {
        match self {
            Self::Dense(dense) => dense.visit_mut(name, each),
            Self::Experts(experts) => experts.visit_mut(name, each),
        }
    }
}

/// What the backward needs beside the layer's input.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Tokens that each routed expert got; None of a dense layer.
    load: Option<Vec<u64>>,
    /// None: computed again when the backward needs it.
    products: Option<Products>,
}

impl Saved {
    pub(crate) fn load(&self) -> Option<Vec<u64>> {
        self.load.clone()
    }

    /// Frees the memory of the products; the backward then takes the time of another forward.
    pub(crate) fn forget(&mut self) {
        self.products = None;
    }
}

/// What a forward made on its way.
#[derive(Debug)]
pub(crate) struct Products {
    attention_in: Tensor,
    pub(crate) attention: mla::Saved,
    /// Between the two halves.
    middle: Tensor,
    feed_forward_in: Tensor,
    feed_forward: FeedForwardSaved,
}

#[derive(Debug)]
enum FeedForwardSaved {
    Dense(swiglu::Saved),
    Experts(Box<experts::Saved>),
}

impl FeedForwardSaved {
    fn load(&self) -> Option<Vec<u64>> {
        match self {
            Self::Dense(_) => None,
            Self::Experts(saved) => Some(saved.load()),
        }
    }
}

impl Layer {
    pub(crate) fn zeros(config: &ModelConfig, layer: usize) -> Self {
        Self {
            attention_norm: Tensor::zeros(&[config.hidden]),
            attention: Mla::zeros(config),
            feed_forward_norm: Tensor::zeros(&[config.hidden]),
            feed_forward: if config.has_experts(layer) {
                FeedForward::Experts(Moe::zeros(config))
            } else {
                FeedForward::Dense(SwiGlu::zeros(config.hidden, config.dense_inner))
            },
        }
    }

    /// [n, hidden] -> [n, hidden], with all that the backward needs.
    pub(crate) fn forward(
        &self,
        pass: Pass<'_>,
        x: &Tensor,
    ) -> Result<(Tensor, Saved), ModelError> {
        let (y, products) = self.compute(pass, x)?;
        Ok((y, Saved { load: products.feed_forward.load(), products: Some(products) }))
    }

    /// [n, hidden] -> [n, hidden], with what was made on the way.
    pub(crate) fn compute(
        &self,
        pass: Pass<'_>,
        x: &Tensor,
    ) -> Result<(Tensor, Products), ModelError> {
        let eps = pass.config.rms_eps;
        let attention_in = rms_norm(x, &self.attention_norm, eps);
        let (mut middle, attention) = self.attention.forward(pass, &attention_in);
        middle.add(x);
        let feed_forward_in = rms_norm(&middle, &self.feed_forward_norm, eps);
        let (mut y, feed_forward) = self.feed_forward(pass, &feed_forward_in)?;
        y.add(&middle);
        Ok((y, Products { attention_in, attention, middle, feed_forward_in, feed_forward }))
    }

    /// The same for tokens behind those in the cache, which then has them too.
    pub(crate) fn decode(
        &self,
        pass: Pass<'_>,
        x: &Tensor,
        cache: &mut LayerCache,
    ) -> Result<Tensor, ModelError> {
        self.infer(pass, x, |attention, x| attention.decode(pass, x, cache))
    }

    /// The layer around any attention that keeps nothing for a backward.
    pub(crate) fn infer(
        &self,
        pass: Pass<'_>,
        x: &Tensor,
        attend: impl FnOnce(&Mla, &Tensor) -> Tensor,
    ) -> Result<Tensor, ModelError> {
        let eps = pass.config.rms_eps;
        let mut middle = attend(&self.attention, &rms_norm(x, &self.attention_norm, eps));
        middle.add(x);
        let (mut y, _) =
            self.feed_forward(pass, &rms_norm(&middle, &self.feed_forward_norm, eps))?;
        y.add(&middle);
        Ok(y)
    }

    fn feed_forward(
        &self,
        pass: Pass<'_>,
        x: &Tensor,
    ) -> Result<(Tensor, FeedForwardSaved), ModelError> {
        Ok(match &self.feed_forward {
            FeedForward::Dense(dense) => {
                let (y, saved) = dense.forward(x);
                (y, FeedForwardSaved::Dense(saved))
            }
            FeedForward::Experts(experts) => {
                let (y, saved) = experts.forward(pass.config, pass.exchange, x)?;
                (y, FeedForwardSaved::Experts(Box::new(saved)))
            }
        })
    }

    pub(crate) fn backward(
        &self,
        pass: Pass<'_>,
        x: &Tensor,
        saved: Saved,
        dy: Tensor,
        grad: &mut Self,
    ) -> Result<Tensor, ModelError> {
        let eps = pass.config.rms_eps;
        let saved = match saved.products {
            Some(products) => products,
            // All ranks that share experts do it, so what travels meets again.
            None => self.compute(pass, x)?.1,
        };
        let saved = &saved;
        let into = &saved.feed_forward_in;
        let d_into = match (&self.feed_forward, &mut grad.feed_forward, &saved.feed_forward) {
            (
                FeedForward::Dense(dense),
                FeedForward::Dense(grad),
                FeedForwardSaved::Dense(saved),
            ) => dense.backward(into, saved, &dy, grad),
            (
                FeedForward::Experts(experts),
                FeedForward::Experts(grad),
                FeedForwardSaved::Experts(saved),
            ) => experts.backward(pass.config, pass.exchange, (into, saved.as_ref()), &dy, grad)?,
            _ => unreachable!("weights, gradients and saved products are of one configuration"),
        };
        let mut d_middle = dy;
        let norm = (&self.feed_forward_norm, &mut grad.feed_forward_norm);
        d_middle.add(&rms_norm_backward(&saved.middle, norm.0, eps, &d_into, norm.1));
        let d_into = self.attention.backward(
            pass,
            &saved.attention_in,
            &saved.attention,
            &d_middle,
            &mut grad.attention,
        );
        let mut dx = d_middle;
        dx.add(&rms_norm_backward(x, &self.attention_norm, eps, &d_into, &mut grad.attention_norm));
        Ok(dx)
    }
}
