//! What a request and each of its choices have come to.

use std::time::Instant;

use ff2_model::ModelConfig;

use crate::{
    Event, Reason, Usage,
    inbox::Job,
    sampler::{Chosen, Sampler, mix},
};

/// A request under way.
pub(super) struct Group {
    pub(super) job: Job,
    seed: u64,
    /// Whether all choices have begun; before, the first computes the prompt for all.
    pub(super) forked: bool,
    pub(super) usage: Usage,
    /// Tokens of the prompt whose log-probabilities were sent.
    pub(super) prompt_told: usize,
    unfinished: usize,
    pub(super) accepted: Instant,
}

/// One answer under way.
pub(super) struct Choice {
    pub(super) group: u64,
    pub(super) number: usize,
    pub(super) sampler: Sampler,
    /// Tokens so far.
    tokens: usize,
}

impl Group {
    pub(super) fn new(job: Job, seed: u64) -> Self {
        let usage = Usage { prompt: job.request.prompt.len(), ..Usage::default() };
        let unfinished = job.request.n;
        let accepted = Instant::now();
        Self { job, seed, forked: false, usage, prompt_told: 0, unfinished, accepted }
    }

    pub(super) fn choice(&self, group: u64, number: usize, config: &ModelConfig) -> Choice {
        let request = &self.job.request;
        let eos = config.eos.iter().filter(|_| !request.ignore_eos);
        let ends = eos.chain(&request.stop_tokens).copied().collect();
        let sampler = Sampler::new(
            request.sampling.clone(),
            mix(self.seed).wrapping_add(number as u64),
            &request.prompt,
            request.constraint.as_ref().map(|constraint| constraint.boxed_clone()),
            request.logprobs.unwrap_or(0),
            config.vocab,
        )
        .ends_after(request.min_tokens, ends);
        Choice { group, number, sampler, tokens: 0 }
    }

    /// Sends a token, and tells whether the answer ends with it.
    pub(super) fn tell(
        &mut self,
        choice: &mut Choice,
        chosen: Chosen,
        eos: &[u32],
    ) -> Option<Reason> {
        let Chosen { token, logprob, top } = chosen;
        choice.tokens += 1;
        self.usage.completion += 1;
        self.send(Event::Token { choice: choice.number, token, logprob, top });
        let request = &self.job.request;
        let is_end = !request.ignore_eos && eos.contains(&token);
        if is_end || request.stop_tokens.contains(&token) {
            Some(Reason::Stop)
        } else if choice.sampler.done() {
            Some(Reason::Constraint)
        } else {
            (choice.tokens == request.max_tokens).then_some(Reason::Length)
        }
    }

    /// Sends a choice's end, with those that were never forked off it; whether the request has ended with it.
    pub(super) fn finish(&mut self, number: usize, reason: &Reason) -> bool {
        let ended = if self.forked { number..number + 1 } else { 0..self.job.request.n };
        for choice in ended {
            self.unfinished -= 1;
            self.send(Event::Finished { choice, reason: reason.clone() });
        }
        if self.unfinished == 0 {
            self.send(Event::Usage(self.usage));
        }
        self.unfinished == 0
    }

    /// The channel holds all events that can come; only a reader that has gone makes this fail, and it is seen soon.
    pub(super) fn send(&self, event: Event) {
        let _ = self.job.events.try_send(event);
    }
}
