//! What the engine generates for one prompt, as steps of an answer: text instead of tokens, and an end for each choice.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use ff2_engine::{Event, Generation, Reason};
use futures::{Stream, StreamExt, stream};

use super::{error::ApiError, logprobs::TokenLogprob, usage::Usage};
use crate::{
    guard::permit::Permit,
    metrics::RequestMetrics,
    text::{
        choice::{Choice, Piece, Reading},
        tokenizer::Tokenizer,
    },
};

/// One step of an answer.
#[derive(Debug)]
pub enum Step {
    /// Log-probabilities of the prompt, before anything is said; if they were asked for.
    Prompt {
        choice: usize,
        logprobs: Arc<[TokenLogprob]>,
    },
    Said {
        choice: usize,
        pieces: Vec<Piece>,
        logprobs: Vec<TokenLogprob>,
    },
    /// Nothing more comes of this choice. The reason is one of OpenAI's: `stop`, `length`, `tool_calls`.
    Finished {
        choice: usize,
        reason: &'static str,
    },
    /// A token that shows nothing yet.
    Quiet,
    /// The generation of a prompt ended.
    Used(Usage),
    Failed(ApiError),
}

/// One prompt's generation. Dropped, it cancels what still runs: a client that is gone costs no more.
#[derive(Debug)]
pub struct Reply {
    pub generation: Generation,
    pub tokenizer: Arc<Tokenizer>,
    /// Tokens that end a text and are none of it.
    pub ends: BTreeSet<u32>,
    /// Number of the first choice within the answer.
    pub first: usize,
    choices: Vec<Open>,
    /// Of the prompt, until they are told.
    prompt: Vec<TokenLogprob>,
    wants_logprobs: bool,
    usage: Usage,
    permit: Permit,
    watch: Watch,
}

#[derive(Debug)]
struct Open {
    text: Choice,
    /// Told with the next piece: what is held back of a text holds its tokens back too.
    logprobs: Vec<TokenLogprob>,
    finished: bool,
}

/// Times of a request, for the metrics.
#[derive(Debug)]
struct Watch {
    metrics: Arc<RequestMetrics>,
    begun: Instant,
    last: Option<Instant>,
}

/// What a reply is made of, beside the generation.
#[derive(Debug)]
pub struct ReplyOptions {
    pub tokenizer: Arc<Tokenizer>,
    pub ends: BTreeSet<u32>,
    pub first: usize,
    pub n: usize,
    pub wants_logprobs: bool,
    pub reading: Reading,
    pub permit: Permit,
    pub metrics: Arc<RequestMetrics>,
    pub begun: Instant,
}

impl Reply {
    pub fn new(generation: Generation, options: ReplyOptions) -> Self {
        let ReplyOptions {
            tokenizer,
            ends,
            first,
            n,
            wants_logprobs,
            reading,
            permit,
            metrics,
            begun,
        } = options;
        let open = || Open { text: Choice::new(&reading), logprobs: Vec::new(), finished: false };
        let choices = (0..n).map(|_| open()).collect();
        let watch = Watch { metrics, begun, last: None };
        Self {
            generation,
            tokenizer,
            ends,
            first,
            choices,
            prompt: Vec::new(),
            wants_logprobs,
            usage: Usage::default(),
            permit,
            watch,
        }
    }

    /// All steps, ended by [`Step::Used`] or [`Step::Failed`].
    pub fn steps(self) -> impl Stream<Item = Step> + Send {
        stream::unfold(self, |mut reply| async move {
            let event = reply.generation.next().await?;
            Some((reply.take(event), reply))
        })
        .flat_map(stream::iter)
    }

    fn take(&mut self, event: Event) -> Vec<Step> {
        if let Event::PromptToken { token, logprob, top } = event {
            self.prompt.push(TokenLogprob { token, logprob, top });
            return Vec::new();
        }
        // Whatever else comes, comes behind the whole prompt.
        let mut steps = self.tell_prompt();
        steps.extend(self.told(event));
        steps
    }

    fn tell_prompt(&mut self) -> Vec<Step> {
        if self.prompt.is_empty() {
            return Vec::new();
        }
        let logprobs: Arc<[TokenLogprob]> = std::mem::take(&mut self.prompt).into();
        let all = self.first..self.first + self.choices.len();
        all.map(|choice| Step::Prompt { choice, logprobs: logprobs.clone() }).collect()
    }

    fn told(&mut self, event: Event) -> Vec<Step> {
        match event {
            Event::Token { choice, token, logprob, top } => {
                self.watch.token();
                self.permit.charge(1);
                let steps = self.token(choice, TokenLogprob { token, logprob: Some(logprob), top });
                if steps.is_empty() { vec![Step::Quiet] } else { steps }
            }
            Event::Finished { choice, reason } => self.finish(choice, &reason),
            Event::PromptToken { .. } => Vec::new(),
            Event::Usage(used) => {
                let (prompt, cached, completion) = (used.prompt, used.cached, used.completion);
                let usage = Usage { prompt, cached, completion, ..self.usage };
                self.watch.metrics.finished(usage, self.watch.begun.elapsed());
                vec![Step::Used(usage)]
            }
        }
    }

    fn token(&mut self, choice: usize, token: TokenLogprob) -> Vec<Step> {
        let open = &mut self.choices[choice];
        if open.finished || self.ends.contains(&token.token) {
            return Vec::new();
        }
        self.usage.reasoning += usize::from(open.text.is_thinking());
        let pieces = open.text.push(&self.tokenizer, token.token);
        if self.wants_logprobs {
            open.logprobs.push(token);
        }
        let stopped = open.text.is_stopped();
        let mut steps = Vec::new();
        if !pieces.is_empty() {
            let logprobs = std::mem::take(&mut open.logprobs);
            steps.push(Step::Said { choice: self.first + choice, pieces, logprobs });
        }
        if stopped {
            self.generation.stop(choice);
            steps.extend(self.finish(choice, &Reason::Stop));
        }
        steps
    }

    fn finish(&mut self, choice: usize, reason: &Reason) -> Vec<Step> {
        let open = &mut self.choices[choice];
        if open.finished {
            return Vec::new();
        }
        open.finished = true;
        let mut steps = Vec::new();
        let pieces = open.text.finish();
        let logprobs = std::mem::take(&mut open.logprobs);
        let number = self.first + choice;
        if !(pieces.is_empty() && logprobs.is_empty()) {
            steps.push(Step::Said { choice: number, pieces, logprobs });
        }
        let reason = match reason {
            Reason::Failed(why) => {
                self.watch.metrics.ended("error");
                steps.push(Step::Failed(ApiError::internal(format!(
                    "the generation failed: {why}"
                ))));
                return steps;
            }
            Reason::Cancelled => {
                self.watch.metrics.ended("abort");
                steps.push(Step::Failed(ApiError::unavailable(
                    "the server stopped this generation",
                )));
                return steps;
            }
            Reason::Length => "length",
            Reason::Stop | Reason::Constraint if open.text.has_called() => "tool_calls",
            Reason::Stop | Reason::Constraint => "stop",
        };
        self.watch.metrics.ended(if reason == "length" { "length" } else { "stop" });
        steps.push(Step::Finished { choice: number, reason });
        steps
    }
}

impl Watch {
    fn token(&mut self) {
        let now = Instant::now();
        match self.last.replace(now) {
            None => self.metrics.first_token(now - self.begun),
            Some(last) => self.metrics.next_token(now - last),
        }
    }
}
