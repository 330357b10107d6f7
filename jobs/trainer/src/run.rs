//! `ff2-train run`: trains a model as one configuration says, from the start or from where its newest checkpoint was.

mod evaluate;
mod gradient;
mod job;
mod lead;
mod ranks;
mod start;
mod step;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use ff2_model::{multiply_in, peak_flops};

use crate::{
    baseline::Baseline,
    checkpoint::{Saver, Snapshot},
    config::{self, RunConfig},
    data::{Dataset, Loader, Manifest, Order, Place, Store},
    watch::{Record, Watch},
};
pub(crate) use evaluate::{Heldout, Score};
use job::{Job, Request};
use lead::Lead;
use ranks::Ranks;
pub(crate) use start::{Optimizer, Training};
pub(crate) use step::Done;
use step::Step;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to train, on what, how: a TOML file (docs/TRAINING.md lists its keys)
    #[arg(long)]
    config: PathBuf,
    /// Replaces a key of the file, for example optimizer.learning_rate=3e-4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Go on from the checkpoint of this step; newer ones are set aside
    #[arg(long, value_name = "STEP")]
    resume_from: Option<u64>,
    /// A JSON object for each step and event, instead of lines for people
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let config = config::load(&arguments.config, &arguments.sets)?;
    let job = Job::from_environment()?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(config.threads)
        .build_global()
        .context("start the threads that compute")?;
    multiply_in(config.precision);
    let ranks = Ranks::meet(config.parallel.encrypt).context("meet the other ranks")?;
    let outcome = begin(&config, job, &ranks, arguments);
    if let Err(error) = &outcome {
        ranks.fail(error);
    }
    outcome
}

fn begin(config: &RunConfig, job: Job, ranks: &Ranks, arguments: &Arguments) -> Result<ExitCode> {
    let checkpoints = job.checkpoint_folder(config);
    let (data, rank) = (&config.data, ranks.rank());
    let copies = config.out.join(format!(".dataset-{rank}"));
    let store = Store::open(&data.folder, &data.mount_config, copies)?;
    let manifest = Manifest::read(store.local())?;
    ranks.have_same("configuration", &config.of_all_ranks())?;
    ranks.have_same("dataset", &manifest)?;
    let (batch, count) = (config.data.batch, ranks.count());
    ensure!(
        batch.is_multiple_of(count),
        "data.batch is {batch}, expected a multiple of the {count} ranks"
    );
    let from = (ranks, arguments.resume_from);
    let (mut training, notes) = start::start(config, &manifest, &checkpoints, from)?;
    let saver = Saver::new(&checkpoints, &config.checkpoint, store.local(), ranks.stream())?;
    let lead = match ranks.leads() {
        true => {
            let watch = Watch::start(config, training.step, arguments.json)?;
            notes.iter().for_each(|note| watch.note(note));
            Some(Lead { watch, saved: training.step })
        }
        false => None,
    };
    let run = Run { config, store: &store, manifest: &manifest, job, ranks, saver, lead };
    run.train(&mut training)
}

struct Run<'a> {
    config: &'a RunConfig,
    store: &'a Store,
    manifest: &'a Manifest,
    job: Job,
    ranks: &'a Ranks,
    saver: Saver,
    /// None on all ranks but the first.
    lead: Option<Lead>,
}

impl Run<'_> {
    /// All ranks go the same way through this: each look at the others is made by all.
    fn train(mut self, training: &mut Training) -> Result<ExitCode> {
        let config = self.config;
        let dataset = Arc::new(self.open(&self.manifest.train)?);
        let heldout = self.heldout()?;
        ensure!(
            heldout.is_some() || !config.evaluate.baseline,
            "evaluate.baseline is true, but nothing of {} is held out; expected text that was tokenized with a share \
             for --heldout, or evaluate.baseline = false",
            config.data.folder.display()
        );
        let flops_share = self.introduce(training, dataset.sequences());
        let order = Order::new(dataset.sequences(), config.seed);
        let (position, rank, ranks) = (training.position, self.ranks.rank(), self.ranks.count());
        let place = Place { position, batch: config.data.batch / ranks, rank, ranks };
        let mut loader = Loader::start(Arc::clone(&dataset), order, place);
        let mut step = Step::new(config);
        let mut is_save_due = false;
        while training.step < config.steps {
            let decision = self.ranks.decide(self.job.request(), is_save_due)?;
            if decision.save {
                self.save(training)?;
            }
            is_save_due = false;
            if let Some(request) = decision.request {
                return self.make_room(training, request);
            }
            let began = Instant::now();
            let interrupted = || self.ranks.is_alone() && self.job.request().is_some();
            // What interrupted it is decided about above.
            let Some(done) = step.run(training, &mut loader, &interrupted)? else { continue };
            let took = began.elapsed();
            let is_last = training.step == config.steps;
            let score = match &heldout {
                Some(heldout) if is_last || is_due(training.step, config.evaluate.every) => {
                    Some(heldout.score(training, self.ranks)?)
                }
                _ => None,
            };
            let saved = self.saver.poll();
            if let Some(lead) = &mut self.lead {
                let mut record = Record::new(training, &done, took, flops_share);
                record.heldout = score;
                lead.step(record, saved)?;
                is_save_due = self.is_save_due(training.step);
            }
        }
        self.save_now(training, None)?;
        if let Some(lead) = &self.lead {
            if let Some(heldout) = heldout.filter(|_| config.evaluate.baseline) {
                compare(lead, &dataset, &heldout, self.manifest.vocabulary)?;
            }
            lead.end(&self.job, training.step, "done")?;
        }
        self.ranks.close()?;
        Ok(ExitCode::SUCCESS)
    }

    fn open(&self, entries: &[crate::data::ShardEntry]) -> Result<Dataset> {
        let data = &self.config.data;
        let (sequence, verify) = (data.sequence, data.verify);
        Ok(Dataset::open(self.store, self.manifest, entries, sequence, verify)?)
    }

    /// None if nothing was held out.
    fn heldout(&self) -> Result<Option<Heldout>> {
        let entries = &self.manifest.heldout;
        if entries.is_empty() {
            return Ok(None);
        }
        let (dataset, sequences) = (self.open(entries)?, self.config.evaluate.sequences);
        Heldout::new(dataset, self.store.local(), sequences).map(Some)
    }

    /// Tells what begins. Returns the arithmetic of a token as a share of what the ranks do in a second,
    /// each as this one.
    fn introduce(&self, training: &Training, sequences: u64) -> f64 {
        let Some(lead) = &self.lead else { return 0.0 };
        let (model, data) = (&training.model, &self.config.data);
        let flops =
            model.config().training_flops(data.sequence, self.config.loss.mtp_weight != 0.0);
        let peak = peak_flops() * self.ranks.count() as f64;
        let from = match training.step {
            0 => "from the start".to_owned(),
            step => format!("on from step {step}"),
        };
        let step = data.batch * data.accumulate;
        let ranks = match self.ranks.count() {
            1 => String::new(),
            count => format!(" on this of {count} ranks"),
        };
        lead.watch.note(&format!(
            "{} parameters{ranks}, {:.1} MFLOP a token at {:.1} GFLOP/s; an epoch is {:.1} steps; {from}",
            model.weights().len(),
            flops / 1e6,
            peak / 1e9,
            sequences as f64 / step as f64,
        ));
        flops / peak
    }

    /// A slot that comes too early is left out; who asked for steps gets all of them.
    fn is_save_due(&mut self, step: u64) -> bool {
        let by_steps = is_due(step, self.config.checkpoint.every) && step < self.config.steps;
        self.job.is_save_due(by_steps) && !(self.job.rate().is_some() && self.saver.is_busy())
    }

    /// Begins to save, when what was saved before is. All ranks do, each its share.
    fn save(&mut self, training: &Training) -> Result<()> {
        let began = Instant::now();
        let earlier = self.saver.wait();
        let snapshot = self.snapshot(training);
        let started = self.saver.start(snapshot, self.job.rate());
        let Some(lead) = &mut self.lead else { return Ok(started?) };
        lead.report(earlier);
        let waited = began.elapsed().as_millis();
        lead.watch.note(&format!("step {}: saving; training waited {waited} ms", training.step));
        lead.saved = training.step;
        Ok(started?)
    }

    fn snapshot(&self, training: &Training) -> Snapshot {
        Snapshot::new(training, self.manifest, self.config.data.sequence)
    }

    /// Saves what there is and ends. A step that was interrupted left no trace in it.
    fn make_room(mut self, training: &Training, request: Request) -> Result<ExitCode> {
        if let Some(lead) = &self.lead {
            lead.watch.note(&format!("step {}: asked to make room", training.step));
        }
        self.save_now(training, self.job.last_rate())?;
        if let Some(lead) = &self.lead {
            lead.end(&self.job, training.step, "saved")?;
        }
        self.ranks.close()?;
        if self.lead.is_some() {
            // The last thing: it ends all that is left of the job.
            self.job.acknowledge(request)?;
        }
        Ok(request.exit_code())
    }

    /// Returns when the state of `training` is on disk, written at `rate` bytes a second at most. An earlier one that
    /// is being written is not written slowly any more.
    fn save_now(&mut self, training: &Training, rate: Option<u64>) -> Result<()> {
        self.saver.hurry();
        let earlier = self.saver.wait();
        let step = training.step;
        let is_saved = self.lead.as_mut().is_some_and(|lead| {
            let is_saved = earlier.is_ok() && lead.saved == step && step > 0;
            lead.report(earlier);
            is_saved
        });
        if !self.ranks.told(!is_saved)? {
            return Ok(());
        }
        self.saver.start(self.snapshot(training), rate)?;
        // One that fails is an error: nobody would save it later.
        let saved = self.saver.wait().context("save the last step")?;
        if let Some(lead) = &mut self.lead {
            lead.report(Ok(saved));
        }
        Ok(())
    }
}

/// Tells how the last step's model does beside models that count.
fn compare(lead: &Lead, dataset: &Dataset, heldout: &Heldout, vocabulary: u32) -> Result<()> {
    let last = lead.watch.records().last().and_then(|record| record.heldout);
    let model = last.context("find the last step's score of the held-out text in metrics.jsonl")?;
    let baseline = Baseline::measure(dataset, heldout, vocabulary)?;
    lead.watch.compare(&baseline.beside(model));
    Ok(())
}

/// 0 is never.
fn is_due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// Where a run's checkpoints are outside of jobs.
fn default_checkpoints(out: &Path) -> PathBuf {
    out.join("checkpoints")
}
