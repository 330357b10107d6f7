//! The whole of what ranks hold in parts: for checkpoints, and back from them onto as many ranks as there are then.

use std::collections::BTreeMap;

use ff2_model::{Model, Parameters, Tensor, Weights};

use crate::{Parallel, ParallelError, buckets::Family, layout::Layout};

/// A whole model's weights and the two moments of AdamW, under the weights' names.
#[derive(Debug)]
pub struct State {
    pub steps: i32,
    pub weights: Weights,
    pub first: Weights,
    pub second: Weights,
}

impl Parallel {
    /// Brings all to rank 0, which alone gets it. All ranks call it between the same steps.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn gather(&self, model: &Model) -> Result<Option<State>, ParallelError> {
        let mut state = (self.world().rank() == 0).then(|| {
            let zeros = Weights::zeros(model.config());
            let (first, second) = (zeros.clone(), zeros.clone());
            State { steps: self.steps(), weights: zeros, first, second }
        });
        for ((number, family), moments) in self.families.iter().enumerate().zip(&self.moments) {
            let whole = [&moments.first, &moments.second];
            for (moment, lists) in whole.into_iter().enumerate() {
                for (bucket, list) in lists.iter().enumerate() {
                    let of_rank = self.collect(number, family, bucket, list)?;
                    if let Some(state) = &mut state {
                        let into = if moment == 0 { &mut state.first } else { &mut state.second };
                        put(family, bucket, &of_rank, into);
                    }
                }
            }
            if number > 0 {
                // Experts; all other weights rank 0 has.
                let tensors = tensors(model.weights());
                for bucket in 0..family.layout.buckets.len() {
                    let numbers = family.layout.numbers(bucket);
                    let mut list = Vec::with_capacity(numbers.len());
                    for (slot, part) in family.layout.within(bucket, numbers) {
                        list.extend_from_slice(&tensors[&slot.name].data()[part]);
                    }
                    let of_rank = self.to_first(list)?;
                    if let Some(state) = &mut state {
                        put(family, bucket, &of_rank, &mut state.weights);
                    }
                }
            }
        }
        if let Some(state) = &mut state {
            let own = tensors(model.weights());
            state.weights.visit_mut("", &mut |name, tensor| {
                if let Some(own) = own.get(&name) {
                    tensor.data_mut().copy_from_slice(own.data());
                }
            });
        }
        Ok(state)
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

    /// A bucket's numbers, of which this rank has those that it sums, of each rank that shares the experts; at rank 0.
    fn collect(
        &self,
        number: usize,
        family: &Family,
        bucket: usize,
        list: &[f32],
    ) -> Result<Vec<Vec<f32>>, ParallelError> {
        let whole = match family.scattered {
            true => family.ranks.all_gather(list.to_vec(), &family.parts(bucket))?.wait()?,
            false => list.to_vec(),
        };
        if number == 0 { Ok(vec![whole]) } else { self.to_first(whole) }
    }

    /// What each of the ranks that share the experts has goes to the first of them.
    fn to_first(&self, list: Vec<f32>) -> Result<Vec<Vec<f32>>, ParallelError> {
        let Some(experts) = &self.experts else { return Ok(vec![list]) };
        let mut out = vec![Vec::new(); experts.0.ranks()];
        out[0] = list;
        Ok(experts.0.all_to_all(out)?.wait()?)
    }
}

/// Puts a bucket's numbers of each rank where they belong: the r-th rank's experts have the same place in its layout as
/// those of the first, and other numbers.
fn put(family: &Family, bucket: usize, of_rank: &[Vec<f32>], into: &mut Weights) {
    let shift = experts(&family.layout);
    let mut into = tensors_mut(into);
    for (rank, list) in of_rank.iter().enumerate() {
        let mut rest = &list[..];
        for (slot, part) in family.layout.within(bucket, family.layout.numbers(bucket)) {
            let (here, later) = rest.split_at(part.len());
            let name = shifted(&slot.name, rank * shift);
            let tensor = into.get_mut(&name).expect("a whole model has all experts");
            tensor.data_mut()[part].copy_from_slice(here);
            rest = later;
        }
    }
}

/// Between the layer's name and the number of an expert.
const EXPERTS: &str = ".mlp.experts.";

fn number(name: &str) -> Option<(usize, usize)> {
    let at = name.find(EXPERTS)? + EXPERTS.len();
    let digits = name[at..].find('.')?;
    Some((at, name[at..at + digits].parse().ok()?))
}

/// How many experts of a layer a rank holds.
fn experts(layout: &Layout) -> usize {
    let numbers = layout.slots.iter().filter_map(|slot| number(&slot.name)).map(|(_, n)| n);
    let (least, most) =
        numbers.fold((usize::MAX, 0), |(least, most), n| (least.min(n), most.max(n)));
    (most + 1).saturating_sub(least)
}

/// The name of the expert that many places further.
fn shifted(name: &str, places: usize) -> String {
    match number(name) {
        Some((at, expert)) if places > 0 => {
            let digits = expert.to_string().len();
            format!("{}{}{}", &name[..at], expert + places, &name[at + digits..])
        }
        _ => name.to_owned(),
    }
}

fn tensors(weights: &Weights) -> BTreeMap<String, &Tensor> {
    let mut all = BTreeMap::new();
    weights.visit("", &mut |name, tensor| {
        all.insert(name, tensor);
    });
    all
}

fn tensors_mut(weights: &mut Weights) -> BTreeMap<String, &mut Tensor> {
    let mut all = BTreeMap::new();
    weights.visit_mut("", &mut |name, tensor| {
        all.insert(name, tensor);
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_of_other_ranks_have_higher_numbers() {
        let name = "model.layers.3.mlp.experts.9.up_proj.weight";
        assert_eq!(shifted(name, 8), "model.layers.3.mlp.experts.17.up_proj.weight");
        assert_eq!(shifted(name, 0), name);
        assert_eq!(shifted("model.norm.weight", 8), "model.norm.weight");
    }
}
