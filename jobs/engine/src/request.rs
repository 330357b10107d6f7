//! What is asked of the engine.

use crate::{Constraint, Refused};

/// Text to go on with, as tokens.
pub struct Request {
    pub prompt: Vec<u32>,
    /// Answers to the same prompt, each called a choice.
    pub n: usize,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Before so many, no token that ends an answer is chosen while another may be.
    pub min_tokens: usize,
    /// Whether answers go on behind the model's end-of-text token.
    pub ignore_eos: bool,
    /// Tokens that end an answer, beside the model's own.
    pub stop_tokens: Vec<u32>,
    /// With each token its log-probability, and those of so many likeliest.
    pub logprobs: Option<usize>,
    /// The same for the tokens of the prompt.
    pub prompt_logprobs: Option<usize>,
    pub sampling: Sampling,
    /// Each choice has a copy.
    pub constraint: Option<Box<dyn Constraint>>,
}

impl Request {
    /// One answer of at most `max_tokens` tokens, greedy.
    pub fn greedy(prompt: Vec<u32>, max_tokens: usize) -> Self {
        Self {
            prompt,
            n: 1,
            max_tokens,
            min_tokens: 0,
            ignore_eos: false,
            stop_tokens: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            constraint: None,
        }
    }

    /// Checks all that depends on no engine's state.
    pub(crate) fn check(&self, vocab: usize, choices_max: usize) -> Result<(), Refused> {
        let invalid = |detail: String| Err(Refused::Invalid(detail));
        if self.prompt.is_empty() {
            return invalid("the prompt is empty, expected at least 1 token".to_owned());
        }
        if let Some(token) = self.prompt.iter().find(|token| **token as usize >= vocab) {
            return invalid(format!("the prompt has token {token}, expected less than {vocab}"));
        }
        if self.n == 0 || self.n > choices_max {
            return invalid(format!("n is {}, expected 1 to {choices_max}", self.n));
        }
        if self.max_tokens == 0 {
            return invalid("max_tokens is 0, expected at least 1".to_owned());
        }
        if self.min_tokens > self.max_tokens {
            let (least, most) = (self.min_tokens, self.max_tokens);
            return invalid(format!("min_tokens is {least}, expected at most max_tokens, {most}"));
        }
        for (name, count) in
            [("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)]
        {
            if let Some(count) = count.filter(|count| *count > LOGPROBS_MAX) {
                return invalid(format!("{name} is {count}, expected at most {LOGPROBS_MAX}"));
            }
        }
        self.sampling.check(vocab)
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("prompt_tokens", &self.prompt.len())
            .field("n", &self.n)
            .field("max_tokens", &self.max_tokens)
            .field("sampling", &self.sampling)
            .field("constrained", &self.constraint.is_some())
            .finish_non_exhaustive()
    }
}

/// Alternatives that may be asked for with each token, as in the APIs of others.
pub const LOGPROBS_MAX: usize = 20;

/// How a token is chosen. The defaults take it from the model's own distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// Of the likeliest tokens as many as have this probability together.
    pub top_p: f32,
    /// So many likeliest tokens; 0: all.
    pub top_k: usize,
    /// Tokens of at least this share of the likeliest one's probability.
    pub min_p: f32,
    /// Divides what favours tokens of prompt and answer (Keskar et al. 2019); 1: no change.
    pub repetition_penalty: f32,
    /// Taken from the logits of tokens that the answer has.
    pub presence_penalty: f32,
    /// The same, times how often it has them.
    pub frequency_penalty: f32,
    /// Same seed, same text. None: another each time.
    pub seed: Option<u64>,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Only these tokens; None: all.
    pub allowed_tokens: Option<Vec<u32>>,
    /// Sequences of tokens that the answer never has.
    pub bad_words: Vec<Vec<u32>>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            logit_bias: Vec::new(),
            allowed_tokens: None,
            bad_words: Vec::new(),
        }
    }
}

impl Sampling {
    fn check(&self, vocab: usize) -> Result<(), Refused> {
        let ranges = [
            ("temperature", self.temperature, 0.0, 100.0),
            ("top_p", self.top_p, f32::MIN_POSITIVE, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
            ("repetition_penalty", self.repetition_penalty, 0.01, 100.0),
            ("presence_penalty", self.presence_penalty, -2.0, 2.0),
            ("frequency_penalty", self.frequency_penalty, -2.0, 2.0),
        ];
        for (name, value, low, high) in ranges {
            // Written so that what is no number fails too.
            if !(low..=high).contains(&value) {
                let low =
                    if low == f32::MIN_POSITIVE { "above 0".to_owned() } else { format!("{low}") };
                let detail = format!("{name} is {value}, expected {low} to {high}");
                return Err(Refused::Invalid(detail));
            }
        }
        let mut named = self.allowed_tokens.iter().flatten().chain(self.bad_words.iter().flatten());
        if let Some(token) = named.find(|token| **token as usize >= vocab) {
            let detail = format!(
                "allowed_tokens or bad_words have token {token}, expected less than {vocab}"
            );
            return Err(Refused::Invalid(detail));
        }
        if self.allowed_tokens.as_ref().is_some_and(Vec::is_empty) {
            let detail = "allowed_tokens is empty, expected at least 1 token".to_owned();
            return Err(Refused::Invalid(detail));
        }
        match self.logit_bias.iter().find(|(t, b)| *t as usize >= vocab || !b.is_finite()) {
            Some((token, bias)) => Err(Refused::Invalid(format!(
                "logit_bias of token {token} is {bias}, expected a number, and a token below {vocab}"
            ))),
            None => Ok(()),
        }
    }
}
