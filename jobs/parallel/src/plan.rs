//! How a model is divided over the ranks.

use ff2_model::ModelConfig;

use crate::ParallelError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// So many neighbouring ranks share the experts of each layer; 1: each rank has all of them.
    pub expert_ranks: usize,
    /// Each rank keeps the optimizer's moments of its part alone (ZeRO-1).
    pub zero1: bool,
    /// Sums start while the backward goes on. Without it they start behind it: to see what it saves.
    pub overlap: bool,
    /// Numbers whose sums start together. Fewer start earlier, more cost less each.
    pub bucket: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self { expert_ranks: 1, zero1: false, overlap: true, bucket: 2 << 20 }
    }
}

impl Plan {
    /// # Errors
    /// Experts or ranks that cannot be divided so.
    pub fn check(&self, config: &ModelConfig, world: usize) -> Result<(), ParallelError> {
        let Self { expert_ranks: ranks, bucket, .. } = *self;
        if ranks == 0 {
            return Err(ParallelError::Zero("expert_ranks"));
        }
        if bucket == 0 {
            return Err(ParallelError::Zero("bucket"));
        }
        let experts = config.routed_experts;
        if !world.is_multiple_of(ranks) || !experts.is_multiple_of(ranks) {
            return Err(ParallelError::Experts { experts, ranks, world });
        }
        Ok(())
    }
}
