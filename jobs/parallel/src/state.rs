//! What each rank keeps of the whole: written to checkpoints part by part, and taken from them again by as many ranks
//! as there are then.

use std::collections::BTreeMap;

use ff2_model::{Model, Parameters, Tensor, Weights, is_trained};

use crate::Parallel;

/// A run of one tensor's numbers, with what AdamW keeps of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Portion {
    /// The tensor's.
    pub name: String,
    pub shape: Vec<usize>,
    /// The first number's place in the tensor, which is row-major.
    pub start: usize,
    pub weights: Vec<f32>,
    /// The means of the gradients and of their squares; empty if the tensor is not trained.
    pub first: Vec<f32>,
    pub second: Vec<f32>,
}

impl Parallel {
    /// A copy of this rank's share: those of all ranks are the whole model, each number once, in parts as equal as
    /// their updates. No rank waits for another.
    pub fn portions(&self, model: &Model) -> Vec<Portion> {
        let tensors = tensors(model.weights());
        let mut portions = Vec::new();
        for (family, moments) in self.families.iter().zip(&self.moments) {
            for bucket in 0..family.layout.buckets.len() {
                let own = family.own(bucket);
                // Moments begin where this rank's sums do.
                let mut at = own.start - family.summed(bucket).start;
                for (slot, part) in family.layout.within(bucket, own) {
                    let tensor = tensors[&slot.name];
                    let kept = at..at + part.len();
                    at = kept.end;
                    portions.push(Portion {
                        name: slot.name.clone(),
                        shape: tensor.shape().to_vec(),
                        start: part.start,
                        weights: tensor.data()[part].to_vec(),
                        first: moments.first[bucket][kept.clone()].to_vec(),
                        second: moments.second[bucket][kept].to_vec(),
                    });
                }
            }
        }
        if self.world().rank() == 0 {
            // All ranks have the same.
            let untrained = tensors.into_iter().filter(|(name, _)| !is_trained(name));
            portions.extend(untrained.map(|(name, tensor)| Portion {
                name,
                shape: tensor.shape().to_vec(),
                start: 0,
                weights: tensor.data().to_vec(),
                first: Vec::new(),
                second: Vec::new(),
            }));
        }
        portions
    }

    /// Takes this rank's part of the moments of a run that made so many steps, on however many ranks. The weights were
    /// in the model that this began with.
    pub fn restore(&mut self, steps: i32, first: &Weights, second: &Weights) {
        self.steps = steps;
        let (first, second) = (tensors(first), tensors(second));
        for (family, moments) in self.families.iter().zip(&mut self.moments) {
            for bucket in 0..family.layout.buckets.len() {
                let into = [(&mut moments.first, &first), (&mut moments.second, &second)];
                for (lists, from) in into {
                    lists[bucket].clear();
                    for (slot, part) in family.layout.within(bucket, family.summed(bucket)) {
                        lists[bucket].extend_from_slice(&from[&slot.name].data()[part]);
                    }
                }
            }
        }
    }
}

fn tensors(weights: &Weights) -> BTreeMap<String, &Tensor> {
    let mut all = BTreeMap::new();
    weights.visit("", &mut |name, tensor| {
        all.insert(name, tensor);
    });
    all
}
