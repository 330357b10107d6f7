//! What handles and the engine's thread share: the queue, the state of draining, the figures.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use ff2_model::{Model, Pages};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, mpsc};

use crate::{
    EngineError, EngineOptions, Event, Figures, Generation, Refused, Request, generation::Stops,
};

/// A request with the engine's end of its events.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) stops: Arc<Stops>,
}

impl Job {
    pub(crate) fn new(request: Request) -> (Self, Generation) {
        let stops = Arc::new(Stops::new(request.n));
        // As many as can ever come, so that nobody waits for a slow reader; memory grows only as they do.
        let prompt = request.prompt_logprobs.map_or(0, |_| request.prompt.len());
        let (events, receiver) = mpsc::channel(request.n * (request.max_tokens + 1) + prompt + 1);
        let generation = Generation { events: receiver, stops: Arc::clone(&stops) };
        (Self { request, events, stops }, generation)
    }
}

#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Something to do for the engine's thread.
    work: Condvar,
    idle: Notify,
    max_waiting: usize,
    max_running: usize,
    tokens_max: usize,
    vocab: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    draining: bool,
    stopping: bool,
    /// Whether the thread has anything under way.
    busy: bool,
    figures: Figures,
    /// Mean seconds that a request took, the latest counting most.
    service_s: f64,
}

/// What the engine's thread finds when it looks.
pub(crate) enum Found {
    Jobs(Vec<Job>),
    Stop,
}

impl Inbox {
    pub(crate) fn new(model: &Model, options: &EngineOptions) -> Result<Self, EngineError> {
        let wrong = |detail: String| Err(EngineError::Options(detail));
        for (name, value) in [
            ("block_tokens", options.block_tokens),
            ("max_running", options.max_running),
            ("prefill_chunk", options.prefill_chunk),
            ("threads", options.threads),
        ] {
            if value == 0 {
                return wrong(format!("{name} is 0, expected at least 1"));
            }
        }
        let config = model.config();
        let needed = Pages::bytes_per_token(config) * options.block_tokens;
        if options.kv_bytes < 2 * needed {
            let found = options.kv_bytes;
            return wrong(format!(
                "kv_bytes is {found}, expected at least {}: 2 blocks",
                2 * needed
            ));
        }
        Ok(Self {
            state: Mutex::default(),
            work: Condvar::new(),
            idle: Notify::new(),
            max_waiting: options.max_waiting,
            max_running: options.max_running,
            tokens_max: options.tokens_max(config),
            vocab: model.config().vocab,
        })
    }

    pub(crate) fn check(&self, request: &Request) -> Result<(), Refused> {
        request.check(self.vocab, self.max_running)?;
        let tokens = request.prompt.len().saturating_add(request.max_tokens);
        if tokens > self.tokens_max {
            return Err(Refused::TooLong { tokens, limit: self.tokens_max });
        }
        Ok(())
    }

    pub(crate) fn put(&self, job: Job) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.draining || state.stopping {
            return Err(Refused::Stopping);
        }
        if state.waiting.len() >= self.max_waiting {
            // Those that nobody listens to any more take no place.
            state.waiting.retain(|job| !job.events.is_closed());
        }
        if state.waiting.len() >= self.max_waiting {
            // About when the first of the queue has moved up by one request's share of the places.
            let seconds = (state.service_s / self.max_running as f64).clamp(1.0, 60.0);
            return Err(Refused::QueueFull { retry_after: Duration::from_secs_f64(seconds) });
        }
        state.waiting.push_back(job);
        self.work.notify_one();
        Ok(())
    }

    /// Up to `count` waiting jobs. With nothing under way, `busy` is false and this waits for one.
    pub(crate) fn take(&self, count: usize, busy: bool) -> Found {
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return Found::Stop;
            }
            if busy || !state.waiting.is_empty() {
                state.busy = true;
                state.waiting.retain(|job| !job.events.is_closed());
                let count = count.min(state.waiting.len());
                return Found::Jobs(state.waiting.drain(..count).collect());
            }
            state.busy = false;
            self.idle.notify_waiters();
            self.work.wait(&mut state);
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        let state = self.state.lock();
        let waiting = state.figures.waiting + state.waiting.len();
        Figures { waiting, ..state.figures.clone() }
    }

    pub(crate) fn set_figures(&self, figures: &Figures) {
        self.state.lock().figures.clone_from(figures);
    }

    /// A request was answered in this time.
    pub(crate) fn served(&self, time: Duration) {
        let mut state = self.state.lock();
        state.service_s += (time.as_secs_f64() - state.service_s) / 8.0;
    }

    pub(crate) fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    pub(crate) async fn drain(&self) {
        loop {
            // Before looking, so that no end between looking and waiting is missed.
            let idle = self.idle.notified();
            {
                let mut state = self.state.lock();
                state.draining = true;
                if state.stopping || (!state.busy && state.waiting.is_empty()) {
                    return;
                }
            }
            idle.await;
        }
    }

    /// Ends the engine's thread; what waits is dropped, so its generations end.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        state.waiting.clear();
        self.work.notify_one();
        self.idle.notify_waiters();
    }
}
