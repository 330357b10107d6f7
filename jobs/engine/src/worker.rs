//! The engine's thread: takes requests from the inbox and computes their tokens.

use std::{sync::Arc, time::Instant};

use ff2_model::{Cache, Model, ModelError, Tokens};

use crate::{
    EngineError, EngineOptions, Event, Figures, Reason, Usage,
    inbox::{Found, Inbox, Job},
    sampler::{Sampler, logprobs, mix},
};

pub(crate) struct Worker {
    model: Arc<Model>,
    inbox: Arc<Inbox>,
    threads: rayon::ThreadPool,
    figures: Figures,
}

impl Worker {
    pub(crate) fn new(
        model: Arc<Model>,
        options: EngineOptions,
        inbox: Arc<Inbox>,
    ) -> Result<Self, EngineError> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|number| format!("engine-{number}"))
            .build()
            .map_err(|error| EngineError::Threads(std::io::Error::other(error)))?;
        Ok(Self { model, inbox, threads, figures: Figures::default() })
    }

    pub(crate) fn run(mut self) {
        while let Found::Jobs(jobs) = self.inbox.take(1, false) {
            for job in jobs {
                self.figures.running = job.request.n;
                self.inbox.set_figures(self.figures.clone());
                let events = job.events.clone();
                if let Err(error) = self.answer(job) {
                    let reason = Reason::Failed(error.to_string());
                    let _ = events.try_send(Event::Finished { choice: 0, reason });
                }
                self.figures.running = 0;
                self.inbox.set_figures(self.figures.clone());
            }
        }
    }

    fn answer(&mut self, job: Job) -> Result<(), ModelError> {
        let Job { request, events, stops } = job;
        let vocab = self.model.config().vocab;
        let seed = match request.sampling.seed {
            Some(seed) => seed,
            None => getrandom::u64().map_err(|e| ModelError::Input(e.to_string()))?,
        };
        let mut prompt_cache = Cache::new(self.model.config(), 1);
        let prompt = Tokens::new(request.prompt.clone(), request.prompt.len(), vocab)?;
        let first = self.decode(&prompt, &mut prompt_cache)?;
        self.figures.tokens_prefilled += request.prompt.len() as u64;
        if let Some(count) = request.prompt_logprobs {
            for (at, &token) in request.prompt.iter().enumerate() {
                let (logprob, top) = match at.checked_sub(1) {
                    None => (None, Vec::new()),
                    Some(before) => {
                        let row = &first[before * vocab..][..vocab];
                        let (logprob, top) = logprobs(row, token, count);
                        (Some(logprob), top)
                    }
                };
                let _ = events.try_send(Event::PromptToken { token, logprob, top });
            }
        }
        let mut completion = 0;
        for choice in 0..request.n {
            let constraint = request.constraint.as_ref().map(|c| c.boxed_clone());
            let mut sampler = Sampler::new(
                request.sampling.clone(),
                mix(seed).wrapping_add(choice as u64),
                &request.prompt,
                constraint,
                request.logprobs.unwrap_or(0),
                vocab,
            );
            let mut cache = prompt_cache.clone();
            let mut logits = first[first.len() - vocab..].to_vec();
            let mut count = 0;
            let reason = loop {
                if events.is_closed() {
                    return Ok(());
                }
                if stops.wanted(choice) {
                    break Reason::Stop;
                }
                let chosen = match sampler.choose(&logits) {
                    Ok(chosen) => chosen,
                    Err(detail) => break Reason::Failed(detail),
                };
                let token = chosen.token;
                count += 1;
                self.figures.tokens_generated += 1;
                let (logprob, top) = (chosen.logprob, chosen.top);
                let _ = events.try_send(Event::Token { choice, token, logprob, top });
                let ends = !request.ignore_eos && self.model.config().eos.contains(&token);
                if ends || request.stop_tokens.contains(&token) {
                    break Reason::Stop;
                }
                if sampler.done() {
                    break Reason::Constraint;
                }
                if count == request.max_tokens {
                    break Reason::Length;
                }
                logits = self.decode(&Tokens::new(vec![token], 1, vocab)?, &mut cache)?;
            };
            completion += count;
            let _ = events.try_send(Event::Finished { choice, reason });
        }
        let usage = Usage { prompt: request.prompt.len(), cached: 0, completion };
        let _ = events.try_send(Event::Usage(usage));
        Ok(())
    }

    fn decode(&mut self, tokens: &Tokens, cache: &mut Cache) -> Result<Vec<f32>, ModelError> {
        let start = Instant::now();
        let logits = self.threads.install(|| self.model.decode(tokens, cache))?;
        self.figures.step_time.add(start.elapsed());
        Ok(logits.data().to_vec())
    }
}
