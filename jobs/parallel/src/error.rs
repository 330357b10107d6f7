//! Why ranks cannot train together.

use ff2_collectives::CollectiveError;
use ff2_model::ModelError;

#[derive(Debug, thiserror::Error)]
pub enum ParallelError {
    #[error(
        "{experts} routed experts cannot be divided over {ranks} ranks: set expert_ranks to a divisor of both the \
         experts and the {world} ranks of the job"
    )]
    Experts { experts: usize, ranks: usize, world: usize },

    #[error("a plan with {0} = 0: expected at least 1")]
    Zero(&'static str),

    #[error("a step without any sequences: give each rank a part of the batch")]
    NoBatch,

    #[error("ranks have different models: rank {rank} trains {theirs} numbers, rank 0 {ours}")]
    Models { rank: usize, theirs: u64, ours: u64 },

    #[error(transparent)]
    Model(#[from] ModelError),

    #[error(transparent)]
    Ranks(#[from] CollectiveError),
}
