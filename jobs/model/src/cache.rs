//! What later tokens need of earlier ones: a latent and a rotary key a token and layer.

use crate::{ModelConfig, Tensor, mla::Latent};

/// Of equally long sequences, all layers: kv_lora + qk_rope f32 a token and layer.
#[derive(Debug, Clone)]
pub struct Cache {
    pub(crate) layers: Vec<LayerCache>,
    batch: usize,
    len: usize,
}

impl Cache {
    pub fn new(config: &ModelConfig, batch: usize) -> Self {
        let sequence = Sequence::default();
        let layer = LayerCache { sequences: vec![sequence; batch] };
        Self { layers: vec![layer; config.layers], batch, len: 0 }
    }

    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Tokens that each sequence has so far.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn grow(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

#[derive(Debug, Clone)]
pub(crate) struct LayerCache {
    pub(crate) sequences: Vec<Sequence>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Sequence {
    /// [tokens, kv_lora], after the norm.
    pub(crate) latents: Vec<f32>,
    /// [tokens, rope], turned.
    pub(crate) k_rope: Vec<f32>,
}

impl LayerCache {
    /// Adds equally many new tokens to every sequence.
    pub(crate) fn append(&mut self, latent: &Latent) {
        let split = |t: &Tensor| t.data().len() / self.sequences.len();
        let (latent_len, rope_len) = (split(&latent.normed), split(&latent.k_rope));
        let parts =
            latent.normed.data().chunks(latent_len).zip(latent.k_rope.data().chunks(rope_len));
        for (sequence, (latents, k_rope)) in self.sequences.iter_mut().zip(parts) {
            sequence.latents.extend(latents);
            sequence.k_rope.extend(k_rope);
        }
    }
}
