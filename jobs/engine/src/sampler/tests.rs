use super::*;

fn sampler(sampling: Sampling) -> Sampler {
    Sampler::new(sampling, 7, &[1, 1, 2], None, 2, 4)
}

/// How often each of four tokens comes in 4000 draws.
fn frequencies(sampling: &Sampling, logits: &[f32; 4]) -> [f64; 4] {
    let mut found = [0.0; 4];
    for seed in 0..4000 {
        let mut one = Sampler::new(sampling.clone(), seed, &[1], None, 0, 4);
        found[one.choose(logits).unwrap().token as usize] += 1.0 / 4000.0;
    }
    found
}

fn near(found: [f64; 4], expected: [f64; 4]) {
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() < 0.03, "{found:?}, expected {expected:?}");
        assert!(e > 0.0 || *f == 0.0, "{found:?}, expected {expected:?}");
    }
}

#[test]
fn draws_follow_the_distribution_that_the_parameters_make() {
    // Probabilities 0.5, 0.3, 0.15, 0.05.
    let logits = [0.5f32.ln(), 0.3f32.ln(), 0.15f32.ln(), 0.05f32.ln()];
    let plain = Sampling::default();
    near(frequencies(&plain, &logits), [0.5, 0.3, 0.15, 0.05]);
    let sum = 0.25 + 0.09 + 0.0225 + 0.0025;
    let cold = Sampling { temperature: 0.5, ..plain.clone() };
    near(frequencies(&cold, &logits), [0.25, 0.09, 0.0225, 0.0025].map(|x| x / sum));
    let two = Sampling { top_k: 2, ..plain.clone() };
    near(frequencies(&two, &logits), [0.625, 0.375, 0.0, 0.0]);
    // The token that reaches the limit counts.
    let most = Sampling { top_p: 0.7, ..plain.clone() };
    near(frequencies(&most, &logits), [0.625, 0.375, 0.0, 0.0]);
    let near_best = Sampling { min_p: 0.2, ..plain.clone() };
    near(frequencies(&near_best, &logits), [0.5, 0.3, 0.15, 0.0].map(|x| x / 0.95));
    // top_p is of what top_k left: 0.5 / 0.8 reaches 0.6.
    let both = Sampling { top_k: 2, top_p: 0.6, ..plain };
    near(frequencies(&both, &logits), [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn penalties_and_biases_change_the_likeliest() {
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let next = |sampling: Sampling, logits: [f32; 4]| {
        let mut one = sampler(sampling);
        [one.choose(&logits).unwrap().token, one.choose(&logits).unwrap().token]
    };
    assert_eq!(next(greedy.clone(), [1.0, 0.9, 0.0, 0.0]), [0, 0]);
    // Of the answer alone.
    let presence = Sampling { presence_penalty: 0.5, ..greedy.clone() };
    assert_eq!(next(presence, [1.0, 0.9, 0.0, 0.0]), [0, 1]);
    let frequency = Sampling { frequency_penalty: 0.5, ..greedy.clone() };
    assert_eq!(next(frequency, [1.0, 0.9, 0.0, 0.0]), [0, 1]);
    // Of the prompt too, which has 1 and 2; negative logits grow.
    let repetition = Sampling { repetition_penalty: 2.0, ..greedy.clone() };
    assert_eq!(next(repetition.clone(), [0.6, 1.0, 0.9, 0.55]), [0, 3]);
    assert_eq!(next(repetition, [-3.0, -1.0, -1.6, -2.5]), [1, 1]);
    let bias = Sampling { logit_bias: vec![(3, 5.0)], ..greedy };
    assert_eq!(next(bias, [1.0, 0.9, 0.0, 0.0]), [3, 3]);
}

#[test]
fn logprobs_are_those_of_the_model() {
    let bias = Sampling { temperature: 0.0, logit_bias: vec![(2, 9.0)], ..Sampling::default() };
    let logits = [0.1f32.ln() + 4.0, 0.2f32.ln() + 4.0, 0.3f32.ln() + 4.0, 0.4f32.ln() + 4.0];
    let chosen = sampler(bias).choose(&logits).unwrap();
    assert_eq!(chosen.token, 2);
    assert!((chosen.logprob - 0.3f32.ln()).abs() < 1e-6);
    let tokens: Vec<u32> = chosen.top.iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, [3, 2]);
    assert!((chosen.top[0].1 - 0.4f32.ln()).abs() < 1e-6);
}

#[test]
fn one_seed_is_one_text_and_another_is_another() {
    let text = |seed| {
        let mut one = Sampler::new(Sampling::default(), seed, &[0], None, 0, 4);
        (0..64).map(|_| one.choose(&[0.0; 4]).unwrap().token).collect::<Vec<_>>()
    };
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}

/// Allows two tokens in turn, then is done.
#[derive(Clone)]
struct Alternating(u32);

impl Constraint for Alternating {
    fn mask(&mut self, allowed: &mut TokenSet) -> Result<(), String> {
        allowed.clear();
        allowed.insert(self.0 % 2);
        Ok(())
    }

    fn accept(&mut self, _: u32) -> Result<(), String> {
        self.0 += 1;
        Ok(())
    }

    fn done(&self) -> bool {
        self.0 == 3
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[test]
fn a_constraint_decides_against_the_logits() {
    let constraint: Box<dyn Constraint> = Box::new(Alternating(0));
    let mut one = Sampler::new(Sampling::default(), 1, &[0], Some(constraint), 0, 4);
    let mut text = Vec::new();
    while !one.done() {
        text.push(one.choose(&[0.0, 0.0, 50.0, 50.0]).unwrap().token);
    }
    assert_eq!(text, [0, 1, 0]);
}

#[test]
fn only_allowed_tokens_come_and_no_bad_word() {
    // Best first: 0, 1, 2, 3.
    let logits = [4.0, 3.0, 2.0, 1.0];
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let three = |sampling: Sampling| {
        let mut one = sampler(sampling);
        [(); 3].map(|()| one.choose(&logits).unwrap().token)
    };
    assert_eq!(three(greedy.clone()), [0, 0, 0]);
    let allowed_tokens = Some(vec![3, 2]);
    assert_eq!(three(Sampling { allowed_tokens, ..greedy.clone() }), [2, 2, 2]);
    assert_eq!(three(Sampling { bad_words: vec![vec![0], vec![1]], ..greedy.clone() }), [2, 2, 2]);
    // Of a word of several tokens only the last is excluded, and only behind the others.
    assert_eq!(three(Sampling { bad_words: vec![vec![0, 0]], ..greedy.clone() }), [0, 1, 0]);
    assert_eq!(three(Sampling { bad_words: vec![vec![0, 0, 0]], ..greedy.clone() }), [0, 0, 1]);
    let mut none =
        sampler(Sampling { allowed_tokens: Some(vec![1]), bad_words: vec![vec![1]], ..greedy });
    assert!(none.choose(&logits).unwrap_err().contains("bad_words"));
}

#[test]
fn ends_wait_for_the_least_number_unless_nothing_else_is_left() {
    let logits = [4.0, 3.0, 2.0, 1.0];
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let mut one = sampler(greedy.clone()).ends_after(2, vec![0, 1]);
    assert_eq!([(); 3].map(|()| one.choose(&logits).unwrap().token), [2, 2, 0]);
    let only = Sampling { allowed_tokens: Some(vec![1]), ..greedy };
    let mut one = sampler(only).ends_after(2, vec![0, 1]);
    assert_eq!(one.choose(&logits).unwrap().token, 1);
}
