//! What a rank will keep of a model, told before there is one: so much it reads of a checkpoint.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use ff2_model::{ModelConfig, Parameters, Weights};

use crate::{
    ParallelError, Plan,
    layout::{Layout, part},
    parallel::is_expert,
};

/// Of one rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    weights: BTreeSet<String>,
    /// Of each trained tensor that this rank has moments of: which numbers.
    moments: BTreeMap<String, Range<usize>>,
}

impl Share {
    /// # Errors
    /// Experts or ranks that cannot be divided so.
    pub fn new(
        config: &ModelConfig,
        plan: &Plan,
        rank: usize,
        ranks: usize,
    ) -> Result<Self, ParallelError> {
        plan.check(config, ranks)?;
        let Plan { expert_ranks, zero1, bucket, .. } = *plan;
        // Zeros that nobody writes to cost no memory.
        let mut model = Weights::zeros(config);
        model.keep_experts(rank % expert_ranks, expert_ranks)?;
        let mut share = Self { weights: BTreeSet::new(), moments: BTreeMap::new() };
        model.visit("", &mut |name, _| {
            share.weights.insert(name);
        });
        let mut add = |belongs: &dyn Fn(&str) -> bool, rank: usize, ranks: usize| {
            let layout = Layout::new(&model, bucket, belongs);
            for bucket in 0..layout.buckets.len() {
                let all = layout.numbers(bucket);
                let own = if zero1 { part(all, rank, ranks) } else { all };
                let slots = layout.within(bucket, own);
                share.moments.extend(slots.map(|(slot, part)| (slot.name.clone(), part)));
            }
        };
        // As `Parallel::new` forms families.
        match expert_ranks {
            1 => add(&|_| true, rank, ranks),
            _ => {
                add(&|name| !is_expert(name), rank, ranks);
                add(&is_expert, rank / expert_ranks, ranks / expert_ranks);
            }
        }
        Ok(share)
    }

    /// Whether the rank has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.weights.contains(name)
    }

    /// Which of a tensor's numbers the rank has moments of; none of 0..0.
    pub fn moments(&self, name: &str) -> Range<usize> {
        self.moments.get(name).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use ff2_model::is_trained;

    use super::*;
    use crate::layout::tests::small_model;

    #[test]
    fn shares_of_all_ranks_are_all_and_no_more_than_a_plan_asks_for() {
        let config = small_model();
        let mut trained = BTreeMap::new();
        Weights::zeros(&config).visit("", &mut |name, tensor| {
            if is_trained(&name) {
                trained.insert(name, tensor.len());
            }
        });
        let all: usize = trained.values().sum();
        for (ranks, expert_ranks, zero1) in
            [(1, 1, true), (2, 1, true), (3, 1, false), (4, 2, true), (4, 4, true), (4, 2, false)]
        {
            let plan = Plan { expert_ranks, zero1, bucket: 1000, ..Plan::default() };
            let shares: Vec<_> =
                (0..ranks).map(|rank| Share::new(&config, &plan, rank, ranks).unwrap()).collect();
            for (name, &len) in &trained {
                let mut ranges: Vec<_> = shares.iter().map(|share| share.moments(name)).collect();
                ranges.retain(|range| !range.is_empty());
                ranges.sort_by_key(|range| range.start);
                let counted: usize = ranges.iter().map(Range::len).sum();
                let copies = match (zero1, is_expert(name)) {
                    (true, _) => 1,
                    (false, true) => ranks / expert_ranks,
                    (false, false) => ranks,
                };
                assert_eq!(counted, copies * len, "{name} on {ranks} ranks: {ranges:?}");
                let holders = shares.iter().filter(|share| share.has(name)).count();
                let all_have = if is_expert(name) { ranks / expert_ranks } else { ranks };
                assert_eq!(holders, all_have, "{name}");
            }
            let most = shares.iter().map(|share| share.moments.values().map(Range::len).sum());
            let most: usize = most.max().unwrap();
            if zero1 {
                assert!(most <= all / ranks + 2 * all.div_ceil(1000), "{most} of {all}");
            }
        }
        let plan = Plan { expert_ranks: 3, ..Plan::default() };
        assert!(Share::new(&config, &plan, 0, 3).is_err());
    }
}
