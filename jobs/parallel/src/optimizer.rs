//! AdamW over the numbers whose sums this rank has.

use std::collections::BTreeMap;

use ff2_model::{Parameters, Tensor, Update, Weights};
use rayon::prelude::*;

use crate::{ParallelError, buckets::Family};

/// Of AdamW; the defaults are those of DeepSeek-V3 (section 4.2 of its report).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 }
    }
}

impl Settings {
    pub(crate) fn update(self, steps: i32, learning_rate: f32) -> Update {
        let Self { beta1, beta2, eps, weight_decay } = self;
        Update { beta1, beta2, eps, weight_decay, learning_rate, steps }
    }
}

/// The moments of one family, a list a bucket.
#[derive(Debug)]
pub(crate) struct Moments {
    pub(crate) first: Vec<Vec<f32>>,
    pub(crate) second: Vec<Vec<f32>>,
}

impl Moments {
    pub(crate) fn new(family: &Family) -> Self {
        let zeros = || {
            let buckets = 0..family.layout.buckets.len();
            buckets.map(|bucket| vec![0.0; family.summed(bucket).len()]).collect()
        };
        Self { first: zeros(), second: zeros() }
    }

    /// f32 that this rank keeps.
    pub(crate) fn len(&self) -> usize {
        self.first.iter().chain(&self.second).map(Vec::len).sum()
    }

    /// Moves the weights against the sums; scattered ones are gathered from all ranks then.
    pub(crate) fn update(
        &mut self,
        family: &Family,
        weights: &mut Weights,
        sums: &[Vec<f32>],
        update: &Update,
    ) -> Result<(), ParallelError> {
        let mut tensors = by_name(weights);
        let mut work = Vec::new();
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((bucket, sums), (first, second)) in sums.iter().enumerate().zip(moments) {
            let (mut g, mut m, mut v) = (&sums[..], &mut first[..], &mut second[..]);
            for (slot, part) in family.layout.within(bucket, family.summed(bucket)) {
                let tensor = tensors.remove(&slot.name).expect("the layout is of these weights");
                let (g_here, g_rest) = g.split_at(part.len());
                let (m_here, m_rest) = m.split_at_mut(part.len());
                let (v_here, v_rest) = v.split_at_mut(part.len());
                (g, m, v) = (g_rest, m_rest, v_rest);
                work.push((slot.is_matrix, &mut tensor.data_mut()[part], g_here, m_here, v_here));
            }
        }
        work.into_par_iter()
            .for_each(|(is_matrix, w, g, m, v)| update.apply(is_matrix, w, g, m, v));
        if family.scattered { gather(family, weights) } else { Ok(()) }
    }
}

/// Brings each rank's part of the weights to all.
fn gather(family: &Family, weights: &mut Weights) -> Result<(), ParallelError> {
    let mut tensors = by_name(weights);
    let mut started = Vec::new();
    for bucket in 0..family.layout.buckets.len() {
        let mut own = Vec::with_capacity(family.own(bucket).len());
        for (slot, part) in family.layout.within(bucket, family.own(bucket)) {
            own.extend_from_slice(&tensors[&slot.name].data()[part]);
        }
        started.push(family.ranks.all_gather(own, &family.parts(bucket))?);
    }
    for (bucket, started) in started.into_iter().enumerate() {
        let all = started.wait()?;
        let mut rest = &all[..];
        for (slot, part) in family.layout.within(bucket, family.layout.numbers(bucket)) {
            let tensor = tensors.get_mut(&slot.name).expect("the layout is of these weights");
            let (here, later) = rest.split_at(part.len());
            tensor.data_mut()[part].copy_from_slice(here);
            rest = later;
        }
    }
    Ok(())
}

fn by_name(weights: &mut Weights) -> BTreeMap<String, &mut Tensor> {
    let mut tensors = BTreeMap::new();
    weights.visit_mut("", &mut |name, tensor| {
        tensors.insert(name, tensor);
    });
    tensors
}
