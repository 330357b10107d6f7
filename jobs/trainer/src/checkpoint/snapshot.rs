//! A copy of what this rank saves of a run.

use ff2_model::{AdamW, Model, Parameters, is_trained};
use ff2_parallel::Portion;

use super::index::Head;
use crate::{
    data::Manifest,
    run::{Optimizer, Training},
};

/// This rank's share of all that a run needs to go on; training changes the original meanwhile.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(super) head: Head,
    pub(super) pieces: Vec<Piece>,
}

/// A run of a tensor's numbers.
#[derive(Debug)]
pub(super) struct Piece {
    /// With what it is before it, one of [`PARTS`].
    pub(super) name: String,
    /// Of the whole tensor.
    pub(super) shape: Vec<usize>,
    /// The first number's place in the tensor, row-major.
    pub(super) start: usize,
    pub(super) numbers: Vec<f32>,
}

/// Before the names of a checkpoint's tensors. The moments of AdamW are kept of trained tensors alone.
pub(super) const PARTS: [&str; 3] = ["weight", "adamw.mean", "adamw.square"];

impl Snapshot {
    /// `sequence` is that of the run, in tokens.
    pub(crate) fn new(training: &Training, manifest: &Manifest, sequence: usize) -> Self {
        let (optimizer_steps, portions) = match &training.optimizer {
            Optimizer::Whole(adamw) => (adamw.steps(), whole(&training.model, adamw)),
            Optimizer::Divided(parallel) => (parallel.steps(), parallel.portions(&training.model)),
        };
        let head = Head {
            step: training.step,
            position: training.position,
            tokens: training.tokens,
            bad_steps: training.bad_steps,
            optimizer_steps,
            sequence,
            tokenizer: manifest.tokenizer.clone(),
            config: training.model.config().to_json("float32"),
        };
        Self { head, pieces: pieces(portions) }
    }
}

/// One rank's share is all.
fn whole(model: &Model, adamw: &AdamW) -> Vec<Portion> {
    let mut portions = Vec::new();
    model.weights().visit("", &mut |name, tensor| {
        let (shape, weights) = (tensor.shape().to_vec(), tensor.data().to_vec());
        let (first, second) = (Vec::new(), Vec::new());
        portions.push(Portion { name, shape, start: 0, weights, first, second });
    });
    let (means, squares) = adamw.moments();
    for (moments, is_first) in [(means, true), (squares, false)] {
        let mut places = portions.iter_mut();
        moments.visit("", &mut |name, tensor| {
            let portion = places.next().expect("moments have the names of the weights");
            let place = if is_first { &mut portion.first } else { &mut portion.second };
            if is_trained(&name) {
                *place = tensor.data().to_vec();
            }
        });
    }
    portions
}

/// Weights before moments.
fn pieces(portions: Vec<Portion>) -> Vec<Piece> {
    let mut lists = [Vec::new(), Vec::new(), Vec::new()];
    for Portion { name, shape, start, weights, first, second } in portions {
        for ((part, list), numbers) in PARTS.iter().zip(&mut lists).zip([weights, first, second]) {
            if !numbers.is_empty() {
                let (name, shape) = (format!("{part}/{name}"), shape.clone());
                list.push(Piece { name, shape, start, numbers });
            }
        }
    }
    lists.into_iter().flatten().collect()
}
