//! Language models of the DeepSeek family on a CPU, in f32: latent attention (MLA), mixture of experts
//! (DeepSeekMoE) and multi-token prediction (MTP). Owns what a model computes and its Hugging Face layout on disk;
//! never owns data, schedules of a training run, or a server. The trainer calls it.
//!
//! The story of a step: [`Checkpoint`] fills [`Weights`], the names and shapes of which follow from [`ModelConfig`]
//! alone. [`Model::forward`] keeps what [`Model::backward`] needs; gradients are [`Weights`] again, and [`AdamW`]
//! brings both together. [`Model::decode`] reads a [`Cache`] of latents in the absorbed form.
//! Every block (linear, norm, attention, experts) has its forward and its backward beside each other in one file;
//! there is no tape. All dense arithmetic goes through `view::matmul`: another device starts there.

mod adamw;
mod batch;
mod cache;
pub mod checkpoint;
mod config;
mod decode;
mod error;
mod evaluate;
mod exchange;
mod experts;
mod flops;
mod fp8;
mod gate;
mod generate;
mod layer;
mod linear;
mod loss;
mod mla;
mod model;
mod mtp;
mod norm;
mod paged;
mod pages;
mod parameters;
mod precision;
mod random;
mod rope;
mod running;
mod skinny;
mod swiglu;
mod tensor;
mod tokens;
mod vector;
mod view;
mod weights;

pub use adamw::{AdamW, Update};
pub use batch::{Span, Step};
pub use cache::Cache;
pub use checkpoint::Checkpoint;
pub use config::{Choice, Family, ModelConfig, Rope, Yarn};
pub use error::ModelError;
pub use exchange::{Among, Exchange};
pub use flops::peak_flops;
pub use loss::Loss;
pub use model::{Forward, Model};
pub use pages::{Block, Pages};
pub use parameters::Parameters;
pub use precision::{Precision, multiply_in};
pub use tensor::{Stored, Tensor};
pub use tokens::Tokens;
pub use weights::{Weights, is_trained};
