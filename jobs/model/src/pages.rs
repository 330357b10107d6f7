//! The paged cache: latents of many sequences in blocks of equally many tokens. Which sequence has which block is the
//! caller's; several may share one.

use crate::{ModelConfig, Tensor, mla::Latent};

/// Number of a block of [`Pages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(pub u32);

impl Block {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// Memory for `blocks` blocks of all layers, the first module for multi-token prediction among them: kv_lora + qk_rope
/// f32 a token and layer.
#[derive(Debug)]
pub struct Pages {
    layers: Vec<LayerPages>,
    blocks: usize,
}

impl Pages {
    /// All zeros; the system gives memory as it is first written.
    pub fn new(config: &ModelConfig, block_tokens: usize, blocks: usize) -> Self {
        let width = config.kv_lora + config.qk_rope;
        let layer = |_| LayerPages {
            rows: vec![0.0; blocks * block_tokens * width],
            block_tokens,
            width,
            kv_lora: config.kv_lora,
        };
        Self { layers: (0..cached_layers(config)).map(layer).collect(), blocks }
    }

    /// Bytes of one token in all layers.
    pub fn bytes_per_token(config: &ModelConfig) -> usize {
        cached_layers(config) * (config.kv_lora + config.qk_rope) * size_of::<f32>()
    }

    pub fn blocks(&self) -> usize {
        self.blocks
    }

    pub fn block_tokens(&self) -> usize {
        self.layers[0].block_tokens
    }

    /// Bytes that the blocks have been given, all together.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| size_of_val(layer.rows.as_slice())).sum()
    }

    /// Makes `to` the same as `from`.
    pub fn copy(&mut self, from: Block, to: Block) {
        for layer in &mut self.layers {
            let len = layer.block_tokens * layer.width;
            layer.rows.copy_within(from.index() * len..(from.index() + 1) * len, to.index() * len);
        }
    }

    /// A block's numbers, layer after layer.
    pub fn read(&self, block: Block) -> impl Iterator<Item = &[f32]> {
        self.layers.iter().map(move |layer| layer.block(block))
    }

    /// The same parts, to be filled.
    pub fn read_mut(&mut self, block: Block) -> impl Iterator<Item = &mut [f32]> {
        self.layers.iter_mut().map(move |layer| {
            let len = layer.block_tokens * layer.width;
            &mut layer.rows[block.index() * len..][..len]
        })
    }

    pub(crate) fn layer_mut(&mut self, layer: usize) -> &mut LayerPages {
        &mut self.layers[layer]
    }
}

fn cached_layers(config: &ModelConfig) -> usize {
    config.layers + config.mtp_layers.min(1)
}

/// One layer's share: [blocks, block_tokens, kv_lora + rope].
#[derive(Debug)]
pub(crate) struct LayerPages {
    rows: Vec<f32>,
    pub(crate) block_tokens: usize,
    /// kv_lora + rope: a latent after its norm, then its turned rotary key.
    pub(crate) width: usize,
    kv_lora: usize,
}

impl LayerPages {
    /// [block_tokens, width]
    pub(crate) fn block(&self, block: Block) -> &[f32] {
        let len = self.block_tokens * self.width;
        &self.rows[block.index() * len..][..len]
    }

    /// Puts one token in its place: row `row` of what attention made of all new tokens.
    pub(crate) fn put(&mut self, blocks: &[Block], position: usize, latent: &Latent, row: usize) {
        let block = blocks[position / self.block_tokens].index();
        let at = (block * self.block_tokens + position % self.block_tokens) * self.width;
        let (normed, k_rope): (&Tensor, &Tensor) = (&latent.normed, &latent.k_rope);
        let (latent_to, rope_to) = self.rows[at..at + self.width].split_at_mut(self.kv_lora);
        latent_to.copy_from_slice(normed.row(row));
        rope_to.copy_from_slice(k_rope.row(row));
    }
}
