//! The handle: requests go in here, and the threads behind it answer.

use std::{sync::Arc, thread};

use ff2_model::Model;

use crate::{
    EngineError, Figures, Generation, Refused, Request,
    inbox::{Inbox, Job},
    worker::Worker,
};

/// Bounds of one engine. The defaults suit a small model on a few cores.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineOptions {
    /// Tokens of a block of the KV cache. Default 64, the unit of DeepSeek's context caching.
    pub block_tokens: usize,
    /// Memory of the KV cache, bytes. Default 1 GiB.
    pub kv_bytes: usize,
    /// Choices under way at most. Default 16.
    pub max_running: usize,
    /// Requests that may wait. Default 256.
    pub max_waiting: usize,
    /// Tokens of prompts that one step takes at most, so that long prompts do not hold up others' tokens. Default 256.
    pub prefill_chunk: usize,
    /// Guesses with the model's module for multi-token prediction, where it has one, while no more choices than this are
    /// under way; 0: never. Default 4: a full batch has no time to spare for wrong guesses.
    pub draft_running_max: usize,
    /// Threads that compute. Default: those of the machine.
    pub threads: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            block_tokens: 64,
            kv_bytes: 1 << 30,
            max_running: 16,
            max_waiting: 256,
            prefill_chunk: 256,
            draft_running_max: 4,
            threads: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// A running engine; clones are the same one. When the last is dropped, it stops and its generations end as cancelled.
#[derive(Debug, Clone)]
pub struct Engine {
    inbox: Arc<Inbox>,
    /// Ends the threads with the last handle.
    _stop: Arc<StopOnDrop>,
}

impl Engine {
    /// Starts the threads; the model stays in memory until they end.
    ///
    /// # Errors
    /// Options that allow nothing to run, with what is needed; threads that the system refuses.
    pub fn start(model: Arc<Model>, options: EngineOptions) -> Result<Self, EngineError> {
        let inbox = Arc::new(Inbox::new(&model, &options)?);
        let worker = Worker::new(model, &options, Arc::clone(&inbox))?;
        thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || worker.run())
            .map_err(EngineError::Threads)?;
        Ok(Self { _stop: Arc::new(StopOnDrop(Arc::clone(&inbox))), inbox })
    }

    /// Takes a request, or says at once why not. Never blocks.
    ///
    /// # Errors
    /// A full queue, a request that can never fit, values out of range, an engine that drains.
    pub fn submit(&self, request: Request) -> Result<Generation, Refused> {
        self.inbox.check(&request)?;
        let (job, generation) = Job::new(request);
        self.inbox.put(job)?;
        Ok(generation)
    }

    /// As of the last step.
    pub fn figures(&self) -> Figures {
        self.inbox.figures()
    }

    /// Refuses what is new from now on; returns when all that was accepted is finished.
    pub async fn drain(&self) {
        self.inbox.drain().await;
    }

    /// Most tokens of prompt and answer together.
    pub fn tokens_max(&self) -> usize {
        self.inbox.tokens_max()
    }
}

#[derive(Debug)]
struct StopOnDrop(Arc<Inbox>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}
