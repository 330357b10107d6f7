//! The engine's thread: takes requests from the inbox, asks the schedule what to compute, has the model compute it, and
//! sends what comes of it. It owns all state of what is under way; nothing of it is locked.

mod choices;
mod step;

use std::{collections::BTreeMap, sync::Arc};

use ff2_model::{Model, Pages};

use crate::{
    EngineError, EngineOptions, Event, Figures, Reason,
    blocks::Key,
    inbox::{Found, Inbox, Job},
    schedule::{Id, Limits, Schedule, Sequence},
};
use choices::{Choice, Group};

pub(crate) struct Worker {
    model: Arc<Model>,
    inbox: Arc<Inbox>,
    threads: rayon::ThreadPool,
    schedule: Schedule,
    pages: Pages,
    choices: BTreeMap<Id, Choice>,
    groups: BTreeMap<u64, Group>,
    drafts: bool,
    next_id: u64,
    max_running: usize,
    figures: Figures,
}

impl Worker {
    pub(crate) fn new(
        model: Arc<Model>,
        options: &EngineOptions,
        inbox: Arc<Inbox>,
    ) -> Result<Self, EngineError> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|number| format!("engine-{number}"))
            .build()
            .map_err(|error| EngineError::Threads(std::io::Error::other(error)))?;
        let blocks = options.blocks(model.config());
        let drafts = options.draft_running_max > 0 && model.config().mtp_layers > 0;
        let limits = Limits {
            block_tokens: options.block_tokens,
            max_running: options.max_running,
            prefill_chunk: options.prefill_chunk,
            draft_running_max: options.draft_running_max,
        };
        let pages = Pages::new(model.config(), options.block_tokens, blocks);
        let figures = Figures {
            blocks,
            block_tokens: options.block_tokens,
            kv_bytes_per_token: pages.bytes() / (blocks * options.block_tokens),
            ..Figures::default()
        };
        inbox.set_figures(&figures);
        Ok(Self {
            schedule: Schedule::new(limits, blocks, Key([0; 32])),
            pages,
            model,
            inbox,
            threads,
            choices: BTreeMap::new(),
            groups: BTreeMap::new(),
            drafts,
            next_id: 0,
            max_running: options.max_running,
            figures,
        })
    }

    pub(crate) fn run(mut self) {
        loop {
            let room = self.max_running.saturating_sub(self.schedule.waiting());
            match self.inbox.take(room, !self.schedule.is_idle()) {
                Found::Stop => break,
                Found::Jobs(jobs) => jobs.into_iter().for_each(|job| self.start(job)),
            }
            self.end_unwanted();
            self.step();
            self.tell();
        }
        for id in self.choices.keys().copied().collect::<Vec<_>>() {
            self.end(id, Reason::Cancelled);
        }
    }

    fn start(&mut self, job: Job) {
        let seed = match job.request.sampling.seed.map_or_else(getrandom::u64, Ok) {
            Ok(seed) => seed,
            Err(error) => {
                let reason = Reason::Failed(format!("the system gives no random seed: {error}"));
                for choice in 0..job.request.n {
                    let _ = job.events.try_send(Event::Finished { choice, reason: reason.clone() });
                }
                return;
            }
        };
        let id = self.new_id();
        let reusable = job.request.prompt_logprobs.is_none();
        let (prompt, forks) = (job.request.prompt.clone(), job.request.n - 1);
        self.schedule.add(Sequence::new(id, prompt, forks, reusable));
        let group = Group::new(job, seed);
        self.choices.insert(id, group.choice(id.0, 0, self.model.config().vocab));
        self.groups.insert(id.0, group);
    }

    fn new_id(&mut self) -> Id {
        self.next_id += 1;
        Id(self.next_id)
    }

    /// Ends what nobody listens to any more, and choices that the caller has stopped.
    fn end_unwanted(&mut self) {
        let mut ends = Vec::new();
        for (id, choice) in &self.choices {
            let group = &self.groups[&choice.group];
            if group.job.events.is_closed() {
                ends.push((*id, Reason::Cancelled));
            } else if group.forked && group.job.stops.wanted(choice.number) {
                ends.push((*id, Reason::Stop));
            }
        }
        ends.into_iter().for_each(|(id, reason)| self.end(id, reason));
    }

    /// Ends a choice and gives its blocks back. Those that have not been forked off it end too.
    fn end(&mut self, id: Id, reason: Reason) {
        let cached = self.schedule.get(id).and_then(|sequence| sequence.cached);
        self.schedule.finish(id);
        let Some(choice) = self.choices.remove(&id) else { return };
        let Some(group) = self.groups.get_mut(&choice.group) else { return };
        group.usage.cached = group.usage.cached.max(cached.unwrap_or(0));
        if group.finish(choice.number, &reason)
            && let Some(group) = self.groups.remove(&choice.group)
        {
            self.inbox.served(group.accepted.elapsed());
        }
    }

    fn tell(&mut self) {
        let schedule = &self.schedule;
        let figures = &mut self.figures;
        figures.running = schedule.running();
        figures.waiting = schedule.waiting();
        figures.blocks_cached = schedule.blocks.idle();
        figures.blocks_used = schedule.blocks.count() - schedule.blocks.available();
        figures.prefix_queries = schedule.counts.prefix_queries;
        figures.prefix_hits = schedule.counts.prefix_hits;
        figures.preemptions = schedule.counts.preemptions;
        self.inbox.set_figures(figures);
    }
}

impl EngineOptions {
    /// Blocks that the memory is for.
    pub(crate) fn blocks(&self, config: &ff2_model::ModelConfig) -> usize {
        self.kv_bytes / (Pages::bytes_per_token(config) * self.block_tokens)
    }

    /// Tokens that a sequence may have: what the model has positions for and the cache has room for.
    pub(crate) fn tokens_max(&self, config: &ff2_model::ModelConfig) -> usize {
        (self.blocks(config) * self.block_tokens).min(config.max_positions)
    }
}
