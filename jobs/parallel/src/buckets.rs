//! Gradients on their way: copied into buckets as the backward is done with them, summed as the buckets fill.

use ff2_collectives::{Communicator, Pending};
use ff2_model::Tensor;

use crate::{
    ParallelError,
    layout::{Layout, part, parts},
};

/// Numbers that the same ranks sum: all of the model, or the experts apart from the rest.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) ranks: Communicator,
    pub(crate) layout: Layout,
    /// Each rank gets the sum of its part alone.
    pub(crate) scattered: bool,
}

impl Family {
    /// The numbers of a bucket whose sum this rank has.
    pub(crate) fn summed(&self, bucket: usize) -> std::ops::Range<usize> {
        match self.scattered {
            true => self.own(bucket),
            false => self.layout.numbers(bucket),
        }
    }

    /// The numbers of a bucket that count as this rank's: those of all ranks together are the bucket, once.
    pub(crate) fn own(&self, bucket: usize) -> std::ops::Range<usize> {
        part(self.layout.numbers(bucket), self.ranks.rank(), self.ranks.ranks())
    }

    pub(crate) fn parts(&self, bucket: usize) -> Vec<usize> {
        parts(self.layout.numbers(bucket).len(), self.ranks.ranks())
    }

    fn start(&self, bucket: usize, numbers: Vec<f32>) -> Result<Pending<Vec<f32>>, ParallelError> {
        Ok(match self.scattered {
            true => self.ranks.reduce_scatter(numbers, &self.parts(bucket))?,
            false => self.ranks.all_reduce(numbers),
        })
    }
}

/// The buckets of one family in one step.
#[derive(Debug)]
pub(crate) struct Filling<'a> {
    family: &'a Family,
    overlap: bool,
    next_slot: usize,
    open: Vec<f32>,
    full: Vec<Vec<f32>>,
    started: Vec<Pending<Vec<f32>>>,
    failed: Option<ParallelError>,
}

impl<'a> Filling<'a> {
    pub(crate) fn new(family: &'a Family, overlap: bool) -> Self {
        let (full, started) = (Vec::new(), Vec::new());
        Self { family, overlap, next_slot: 0, open: Vec::new(), full, started, failed: None }
    }

    /// A tensor's gradient is done. Those of other families are left alone.
    pub(crate) fn take(&mut self, name: &str, gradient: &Tensor) {
        let layout = &self.family.layout;
        let bucket = self.started.len() + self.full.len();
        if layout.slots.get(self.next_slot).is_none_or(|slot| slot.name != name) {
            return;
        }
        if self.open.is_empty() {
            self.open.reserve_exact(layout.numbers(bucket).len());
        }
        self.open.extend_from_slice(gradient.data());
        self.next_slot += 1;
        if self.next_slot < layout.buckets[bucket].end {
            return;
        }
        let numbers = std::mem::take(&mut self.open);
        match self.overlap {
            true => self.start(numbers),
            false => self.full.push(numbers),
        }
    }

    fn start(&mut self, numbers: Vec<f32>) {
        match self.family.start(self.started.len(), numbers) {
            Ok(started) => self.started.push(started),
            Err(error) => self.failed = Some(error),
        }
    }

    /// The sums of all buckets, each of the numbers of [`Family::summed`].
    pub(crate) fn wait(mut self) -> Result<Vec<Vec<f32>>, ParallelError> {
        for numbers in std::mem::take(&mut self.full) {
            self.start(numbers);
        }
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        assert_eq!(self.started.len(), self.family.layout.buckets.len(), "every gradient was done");
        self.started.into_iter().map(|bucket| Ok(bucket.wait()?)).collect()
    }
}
