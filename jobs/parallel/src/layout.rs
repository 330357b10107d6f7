//! A model's trained numbers in one row, in the order in which the backward is done with them, cut into buckets of
//! whole tensors. No I/O.

use std::ops::Range;

use ff2_model::{Weights, is_trained};

/// One tensor's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) numbers: Range<usize>,
    /// Weight decay applies to matrices.
    pub(crate) is_matrix: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) slots: Vec<Slot>,
    /// Ranges of slots.
    pub(crate) buckets: Vec<Range<usize>>,
}

impl Layout {
    /// Of the trained tensors that `belongs` picks, in buckets of at least `bucket` numbers but for the last.
    pub(crate) fn new(weights: &Weights, bucket: usize, belongs: impl Fn(&str) -> bool) -> Self {
        let (mut layout, mut end, mut begun) = (Self::default(), 0, 0);
        weights.in_order_of_backward(&mut |name, part| {
            part.visit(name, &mut |name, tensor| {
                if !is_trained(&name) || !belongs(&name) {
                    return;
                }
                let numbers = end..end + tensor.len();
                end = numbers.end;
                layout.slots.push(Slot { name, numbers, is_matrix: tensor.shape().len() > 1 });
                if end - layout.slots[begun].numbers.start >= bucket {
                    layout.buckets.push(begun..layout.slots.len());
                    begun = layout.slots.len();
                }
            });
        });
        if begun < layout.slots.len() {
            layout.buckets.push(begun..layout.slots.len());
        }
        layout
    }

    /// The numbers of a bucket.
    pub(crate) fn numbers(&self, bucket: usize) -> Range<usize> {
        let slots = &self.slots[self.buckets[bucket].clone()];
        match (slots.first(), slots.last()) {
            (Some(first), Some(last)) => first.numbers.start..last.numbers.end,
            _ => 0..0,
        }
    }

    /// Each slot of a bucket that has numbers of `wanted`, and which of its own these are.
    pub(crate) fn within(
        &self,
        bucket: usize,
        wanted: Range<usize>,
    ) -> impl Iterator<Item = (&Slot, Range<usize>)> {
        self.slots[self.buckets[bucket].clone()].iter().filter_map(move |slot| {
            let Range { start, end } = slot.numbers;
            let part = wanted.start.max(start)..wanted.end.min(end);
            (!part.is_empty()).then(|| (slot, part.start - start..part.end - start))
        })
    }
}

/// How many of `numbers` each rank has: equal parts, as nearly as whole numbers are.
pub(crate) fn parts(numbers: usize, ranks: usize) -> Vec<usize> {
    (0..ranks).map(|rank| numbers * (rank + 1) / ranks - numbers * rank / ranks).collect()
}

/// Of the rank among them.
pub(crate) fn part(numbers: Range<usize>, rank: usize, ranks: usize) -> Range<usize> {
    let len = numbers.len();
    numbers.start + len * rank / ranks..numbers.start + len * (rank + 1) / ranks
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use ff2_model::ModelConfig;

    use super::*;

    /// Of every kind of tensor a few numbers: dense and with experts, and one more to predict.
    pub(crate) fn small_model() -> ModelConfig {
        ModelConfig::from_json(serde_json::json!({
            "model_type": "deepseek_v3", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
            "moe_intermediate_size": 8, "num_hidden_layers": 2, "first_k_dense_replace": 1, "num_attention_heads": 2,
            "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4,
            "n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
            "num_nextn_predict_layers": 1
        }))
        .unwrap()
    }

    fn weights() -> Weights {
        Weights::random(&small_model(), 1)
    }

    #[test]
    fn every_trained_number_has_one_place() {
        let weights = weights();
        for bucket in [1, 300, 1000, 1 << 30] {
            let layout = Layout::new(&weights, bucket, |_| true);
            let end = layout.slots.iter().fold(0, |end, slot| {
                assert_eq!(slot.numbers.start, end);
                slot.numbers.end
            });
            // All but the biases of two gates.
            assert_eq!(end, weights.len() - 8);
            let buckets = layout.buckets.len();
            assert_eq!((0..buckets).map(|b| layout.numbers(b).len()).sum::<usize>(), end);
            assert!((0..buckets - 1).all(|b| layout.numbers(b).len() >= bucket));
        }
    }

    #[test]
    fn the_head_comes_first_and_the_embedding_last() {
        let layout = Layout::new(&weights(), 1000, |_| true);
        let place = |name: &str| layout.slots.iter().position(|s| s.name.contains(name)).unwrap();
        assert_eq!(place("lm_head"), 0);
        assert_eq!(place("embed_tokens"), layout.slots.len() - 1);
        assert!(place("layers.2.") < place("model.norm"), "MTP before the last norm");
        assert!(
            place("model.norm") < place("layers.1.") && place("layers.1.") < place("layers.0.")
        );
    }

    #[test]
    fn parts_of_ranks_cover_a_bucket_once() {
        let layout = Layout::new(&weights(), 1000, |_| true);
        for ranks in 1..6 {
            let numbers = layout.numbers(1);
            assert_eq!(parts(numbers.len(), ranks).iter().sum::<usize>(), numbers.len());
            let mut covered = 0;
            for rank in 0..ranks {
                let mine = part(numbers.clone(), rank, ranks);
                assert_eq!(mine.len(), parts(numbers.len(), ranks)[rank]);
                covered += layout.within(1, mine).map(|(_, part)| part.len()).sum::<usize>();
            }
            assert_eq!(covered, numbers.len());
        }
    }
}
