//! The caller's end of a request.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::mpsc;

/// What happens to a request, in order. After the last choice's `Finished` comes `Usage`, then nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A token of the prompt with its log-probability given those before; the first has none. Only if asked for.
    PromptToken {
        token: u32,
        logprob: Option<f32>,
        top: Vec<(u32, f32)>,
    },
    /// `logprob` is natural, of the model's own distribution before sampling; `top` are the likeliest tokens with
    /// theirs, as many as were asked for.
    Token {
        choice: usize,
        token: u32,
        logprob: f32,
        top: Vec<(u32, f32)>,
    },
    Finished {
        choice: usize,
        reason: Reason,
    },
    Usage(Usage),
}

/// Tokens of a whole request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub prompt: usize,
    /// Of the prompt, those that were not computed again.
    pub cached: usize,
    /// Of all choices.
    pub completion: usize,
}

/// Why a choice ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A stop token, which is the last [`Event::Token`], or [`Generation::stop`].
    Stop,
    /// `max_tokens`.
    Length,
    /// Its constraint is complete.
    Constraint,
    /// The engine ended before the answer did.
    Cancelled,
    Failed(String),
}

/// A request under way. Dropping it cancels what is left of it and frees its memory.
#[derive(Debug)]
pub struct Generation {
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) stops: Arc<Stops>,
}

impl Generation {
    /// The next event; None after the last. Cancel-safe: no event is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The same for threads outside a runtime.
    pub fn next_blocking(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }

    /// Ends a choice, as a stop token would, before its next token: the caller found a stop text.
    pub fn stop(&self, choice: usize) {
        self.stops.set(choice);
    }
}

/// Which choices the caller wants ended.
#[derive(Debug)]
pub(crate) struct Stops(Vec<AtomicBool>);

impl Stops {
    pub(crate) fn new(choices: usize) -> Self {
        Self((0..choices).map(|_| AtomicBool::new(false)).collect())
    }

    fn set(&self, choice: usize) {
        if let Some(stop) = self.0.get(choice) {
            stop.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn wanted(&self, choice: usize) -> bool {
        self.0[choice].load(Ordering::Relaxed)
    }
}
