//! One model trained by several ranks (docs/design/0017-collectives.md).
//!
//! Owns which numbers of a model which rank sums, keeps moments of and updates; never computes a layer (`ff2-model`
//! does) and never moves a byte (`ff2-collectives` does). The trainer calls it once a step.
//!
//! The story of a step: each rank passes its own part of the batch through the model. As soon as the backward is done
//! with a layer, [`Parallel::gradients`] copies its gradient into a bucket, and a full bucket's sum starts while the
//! backward goes on (`buckets`). With divided experts, tokens travel to them meanwhile on a stream of their own
//! (`experts`). [`Parallel::update`] then clips and moves the weights (`optimizer`): all of them on each rank, or
//! (ZeRO-1, Rajbhandari et al. 2020) each rank its part, which all then gather. For a checkpoint each rank
//! gives its share of the whole, [`Parallel::portions`], and of one it reads what it will keep, [`Share`].

mod buckets;
mod error;
mod experts;
mod layout;
mod optimizer;
mod parallel;
mod plan;
mod share;
mod state;

pub use error::ParallelError;
pub use optimizer::Settings;
pub use parallel::{Gradients, Parallel};
pub use plan::Plan;
pub use share::Share;
pub use state::Portion;
