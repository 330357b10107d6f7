//! Models and readers for the engine's tests.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use ff2_engine::{Engine, EngineOptions, Event, Generation, Reason, Request, Usage};
use ff2_model::{Checkpoint, Model, Pages};

pub(crate) fn reference(name: &str) -> Arc<Model> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity/reference");
    Arc::new(Checkpoint::open(&root.join(name)).unwrap().load().unwrap())
}

/// Small, so that chunks and blocks end within a test's prompts.
pub(crate) fn options() -> EngineOptions {
    EngineOptions {
        block_tokens: 4,
        kv_bytes: 1 << 20,
        max_running: 8,
        max_waiting: 64,
        prefill_chunk: 10,
        threads: 1,
        ..EngineOptions::default()
    }
}

pub(crate) fn with_blocks(model: &Model, options: EngineOptions, blocks: usize) -> EngineOptions {
    let kv_bytes = blocks * options.block_tokens * Pages::bytes_per_token(model.config());
    EngineOptions { kv_bytes, ..options }
}

pub(crate) fn engine(model: &Arc<Model>, options: EngineOptions) -> Engine {
    Engine::start(Arc::clone(model), options).unwrap()
}

pub(crate) fn text(seed: u32, len: usize) -> Vec<u32> {
    (1..).take(len).map(|at: u32| at * (seed + 7) * 31 % 47).collect()
}

/// All that a generation told.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) prompt: Vec<(u32, Option<f32>)>,
    pub(crate) choices: Vec<Told>,
    pub(crate) usage: Option<Usage>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) tokens: Vec<u32>,
    pub(crate) logprobs: Vec<f32>,
    pub(crate) top: Vec<Vec<(u32, f32)>>,
    pub(crate) reason: Option<Reason>,
}

impl Answer {
    pub(crate) fn of(mut generation: Generation) -> Self {
        let mut answer = Self::default();
        while let Some(event) = generation.next_blocking() {
            answer.add(event);
        }
        answer
    }

    pub(crate) async fn of_async(mut generation: Generation) -> Self {
        let mut answer = Self::default();
        while let Some(event) = generation.next().await {
            answer.add(event);
        }
        answer
    }

    /// Tokens of each choice. Log-probabilities are equal but for rounding, which depends on what runs beside.
    pub(crate) fn texts(&self) -> Vec<Vec<u32>> {
        self.choices.iter().map(|choice| choice.tokens.clone()).collect()
    }

    fn add(&mut self, event: Event) {
        assert!(self.usage.is_none(), "{event:?} behind the usage");
        match event {
            Event::PromptToken { token, logprob, .. } => self.prompt.push((token, logprob)),
            Event::Token { choice, token, logprob, top } => {
                let told = self.choice(choice);
                assert!(told.reason.is_none());
                told.tokens.push(token);
                told.logprobs.push(logprob);
                told.top.push(top);
            }
            Event::Finished { choice, reason } => {
                assert_eq!(self.choice(choice).reason.replace(reason), None);
            }
            Event::Usage(usage) => self.usage = Some(usage),
        }
    }

    fn choice(&mut self, number: usize) -> &mut Told {
        if self.choices.len() <= number {
            self.choices.resize_with(number + 1, Told::default);
        }
        &mut self.choices[number]
    }
}

pub(crate) fn answer(engine: &Engine, request: Request) -> Answer {
    Answer::of(engine.submit(request).unwrap())
}

/// Waits for something that the engine's thread does soon.
pub(crate) fn eventually(done: impl Fn() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("it did not come within 4 s");
}
