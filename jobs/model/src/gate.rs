//! Which experts a token goes to, and with what weight (DeepSeek-V3 report, section 2.1.2; V2 report, 2.2).

use crate::{
    Choice, Family, ModelConfig, Tensor,
    linear::{linear_backward, linear_f32},
    parameters::parameters,
    vector::{sigmoid, softmax, vectorized},
};

#[derive(Debug, Clone)]
pub(crate) struct Gate {
    /// [experts, hidden]
    pub(crate) weight: Tensor,
    /// [experts], added for the choice alone; V3 balances load with it instead of with a loss.
    pub(crate) bias: Option<Tensor>,
}

parameters!(Gate { weight: "weight", bias: "e_score_correction_bias" });

/// The choice for n tokens with k experts each.
#[derive(Debug)]
pub(crate) struct Routing {
    /// [n, k] numbers of experts.
    pub(crate) experts: Vec<usize>,
    /// [n, k] what their outputs are multiplied with.
    pub(crate) weights: Vec<f32>,
    /// [n, experts], of all experts.
    scores: Tensor,
}

impl Gate {
    pub(crate) fn zeros(config: &ModelConfig) -> Self {
        Self {
            weight: Tensor::zeros(&[config.routed_experts, config.hidden]),
            bias: (config.family == Family::DeepseekV3)
                .then(|| Tensor::zeros(&[config.routed_experts])),
        }
    }

    /// Routes the rows of x, [n, hidden].
    pub(crate) fn route(&self, config: &ModelConfig, x: &Tensor) -> Routing {
        // A choice between near equals would follow the rounding.
        let mut scores = linear_f32(x, &self.weight);
        vectorized(
            #[inline(always)]
            || match config.family {
                Family::DeepseekV2 => {
                    (0..scores.rows()).for_each(|row| softmax(scores.row_mut(row)))
                }
                Family::DeepseekV3 => scores.data_mut().iter_mut().for_each(|s| *s = sigmoid(*s)),
            },
        );
        let (mut experts, mut weights) = (Vec::new(), Vec::new());
        for row in 0..scores.rows() {
            let scores = scores.row(row);
            let mut preference = scores.to_vec();
            if let Some(bias) = &self.bias {
                preference.iter_mut().zip(bias.data()).for_each(|(p, b)| *p += b);
            }
            let chosen = choose(config, &mut preference);
            let total: f32 = chosen.iter().map(|&expert| scores[expert]).sum();
            let scale = config.routed_scale
                * if config.normalize_weights { 1.0 / (total + TINY) } else { 1.0 };
            weights.extend(chosen.iter().map(|&expert| scores[expert] * scale));
            experts.extend(chosen);
        }
        Routing { experts, weights, scores }
    }

    /// From the gradient of the weights, [n, k], to that of x. The choice itself has none.
    pub(crate) fn backward(
        &self,
        config: &ModelConfig,
        x: &Tensor,
        routing: &Routing,
        d_weights: &[f32],
        grad: &mut Self,
    ) -> Tensor {
        let k = config.experts_per_token;
        let mut d_logits = Tensor::zeros(routing.scores.shape());
        for row in 0..x.rows() {
            let (scores, d_row) = (routing.scores.row(row), d_logits.row_mut(row));
            let (chosen, d_w) = (&routing.experts[row * k..][..k], &d_weights[row * k..][..k]);
            let total = chosen.iter().map(|&expert| scores[expert]).sum::<f32>() + TINY;
            let along: f32 = chosen.iter().zip(d_w).map(|(&expert, d)| d * scores[expert]).sum();
            for (&expert, d) in chosen.iter().zip(d_w) {
                let d_score =
                    if config.normalize_weights { (d - along / total) / total } else { *d };
                d_row[expert] = d_score * config.routed_scale;
            }
            match config.family {
                Family::DeepseekV3 => {
                    d_row.iter_mut().zip(scores).for_each(|(d, s)| *d *= s * (1.0 - s))
                }
                Family::DeepseekV2 => {
                    let mean: f32 = d_row.iter().zip(scores).map(|(d, s)| d * s).sum();
                    d_row.iter_mut().zip(scores).for_each(|(d, s)| *d = s * (*d - mean));
                }
            }
        }
        linear_backward(x, &self.weight, &d_logits, &mut grad.weight)
    }
}

/// Keeps a sum of scores that all underflowed from dividing by zero; as in the reference.
const TINY: f32 = 1e-20;

/// The experts of one token. `preference` loses those in groups that were not chosen.
fn choose(config: &ModelConfig, preference: &mut [f32]) -> Vec<usize> {
    let size = preference.len() / config.groups;
    let group_scores: Vec<f32> = match config.choice {
        Choice::Greedy => return best(preference, config.experts_per_token),
        Choice::GroupMax => {
            preference.chunks(size).map(|g| g.iter().copied().fold(f32::MIN, f32::max)).collect()
        }
        Choice::GroupTopTwo => preference
            .chunks(size)
            .map(|g| best(g, 2.min(size)).iter().map(|&at| g[at]).sum())
            .collect(),
    };
    let groups = best(&group_scores, config.groups_per_token);
    for (group, scores) in preference.chunks_mut(size).enumerate() {
        if !groups.contains(&group) {
            scores.fill(f32::NEG_INFINITY);
        }
    }
    best(preference, config.experts_per_token)
}

/// Places of the `count` largest, largest first; of equals the first, so that ranks agree.
fn best(scores: &[f32], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    let order = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
    if count < places.len() {
        places.select_nth_unstable_by(count, order);
        places.truncate(count);
    }
    places.sort_unstable_by(order);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_found_in_order_and_ties_go_to_the_first() {
        assert_eq!(best(&[0.5, 2.0, 0.5, -1.0, 0.5], 3), [1, 0, 2]);
        assert_eq!(best(&[f32::NEG_INFINITY, -5.0], 2), [1, 0]);
    }
}
