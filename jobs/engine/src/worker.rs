//! The engine's thread: takes requests from the inbox, asks the schedule what to compute, has the model compute it, and
//! sends what comes of it. It owns all state of what is under way; nothing of it is locked.

mod choices;
mod step;

use std::{collections::BTreeMap, sync::Arc};

use ff2_model::{Block, Model, Pages};

use crate::{
    EngineError, EngineOptions, Event, Figures, Reason,
    blocks::Key,
    disk::{self, Disk, Loaded, Rates},
    inbox::{Found, Inbox, Job, UnderWay},
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
    disk: Option<Disk>,
    /// Sequences whose blocks are being read.
    loading: usize,
    rates: Rates,
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
        let (root, disk) = match &options.disk {
            None => (Key([0; 32]), None),
            Some(disk) => {
                let root = disk::root(&model, options.block_tokens);
                (root, Some(Disk::start(disk, root, &inbox)?))
            }
        };
        Ok(Self {
            schedule: Schedule::new(limits, blocks, root),
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
            disk,
            loading: 0,
            rates: Rates::default(),
        })
    }

    pub(crate) fn run(mut self) {
        loop {
            let room = self.max_running.saturating_sub(self.schedule.waiting() + self.loading);
            let under_way = match (self.schedule.is_idle(), self.loading) {
                (false, _) => UnderWay::Steps,
                (true, 0) => UnderWay::Nothing,
                (true, _) => UnderWay::Loads,
            };
            match self.inbox.take(room, under_way) {
                Found::Stop => break,
                Found::Work { jobs, loaded } => {
                    loaded.into_iter().for_each(|loaded| self.loaded(loaded));
                    jobs.into_iter().for_each(|job| self.start(job));
                }
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
        let group = Group::new(job, seed);
        self.choices.insert(id, group.choice(id.0, 0, self.model.config()));
        self.groups.insert(id.0, group);
        self.queue(Sequence::new(id, prompt, forks, reusable));
    }

    /// Has a sequence wait for its turn, or first for blocks from disk, where that is faster than computing them.
    fn queue(&mut self, mut sequence: Sequence) {
        if let Some(disk) = self.disk.as_ref().filter(|_| sequence.reusable) {
            let missing = self.schedule.missing_keys(&mut sequence);
            let tokens = missing.len() * self.figures.block_tokens;
            let bytes = tokens * self.figures.kv_bytes_per_token;
            if tokens > 0 && self.rates.should_read(bytes, tokens) {
                match disk.load(sequence, missing) {
                    None => {
                        self.loading += 1;
                        return;
                    }
                    Some(back) => sequence = back,
                }
            }
        }
        self.schedule.add(sequence);
    }

    fn loaded(&mut self, loaded: Loaded) {
        self.loading -= 1;
        let bytes = loaded.blocks.iter().map(|(_, body)| body.len()).sum();
        self.rates.read(bytes, loaded.seconds);
        // Cancelled meanwhile.
        if !self.choices.contains_key(&loaded.sequence.id) {
            return;
        }
        let pages = &mut self.pages;
        let fill = |block, body: &[u8]| disk::from_bytes(pages, block, body);
        let brought = self.schedule.bring(&loaded.blocks, fill);
        self.figures.prefix_hits_disk += (brought * self.figures.block_tokens) as u64;
        self.schedule.add(loaded.sequence);
    }

    /// Keeps blocks that became full for later.
    fn save(&self, full: &[(Block, Key)]) {
        let Some(disk) = &self.disk else { return };
        let seconds = self.rates.prefill_s(self.figures.block_tokens);
        for (block, key) in full {
            disk.save(*key, disk::to_bytes(&self.pages, *block), seconds);
        }
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
        let sequence = self.schedule.get(id);
        let cached = sequence.and_then(|sequence| sequence.cached);
        if let (Some(disk), Some(sequence)) = (&self.disk, sequence) {
            disk.used(sequence.keys[..sequence.published].to_vec());
        }
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
        figures.waiting = schedule.waiting() + self.loading;
        figures.blocks_cached = schedule.blocks.idle();
        figures.blocks_used = schedule.blocks.count() - schedule.blocks.available();
        figures.prefix_queries = schedule.counts.prefix_queries;
        figures.prefix_hits = schedule.counts.prefix_hits;
        figures.blocks_not_saved = self.disk.as_ref().map_or(0, Disk::not_saved);
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
