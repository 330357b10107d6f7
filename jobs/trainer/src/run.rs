//! `ff2-train run`: trains a model as one configuration says, from the start or from where its newest checkpoint was.

mod evaluate;
mod gradient;
mod job;
mod start;
mod step;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use ff2_model::peak_flops;

use crate::{
    baseline::Baseline,
    checkpoint::{CheckpointError, Saver, Snapshot},
    config::{self, RunConfig},
    data::{Dataset, Loader, Manifest, Order, Place},
    watch::{Record, Watch},
};
pub(crate) use evaluate::{Heldout, Score};
use job::{Job, Request};
pub(crate) use start::Training;
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
    let checkpoints = job.checkpoint_folder(&config);
    let manifest = Manifest::read(&config.data.folder)?;
    let mut training = start::start(&config, &manifest, &checkpoints, arguments.resume_from)?;
    let run = Run {
        watch: Watch::start(&config, training.step, arguments.json)?,
        saver: Saver::new(&checkpoints, &config.checkpoint, &config.data.folder),
        saved: training.step,
        config: &config,
        manifest: &manifest,
        job,
    };
    run.train(&mut training)
}

struct Run<'a> {
    config: &'a RunConfig,
    manifest: &'a Manifest,
    job: Job,
    watch: Watch,
    saver: Saver,
    /// The newest step that is saved, or is about to be.
    saved: u64,
}

impl Run<'_> {
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
        let position = training.position;
        let place = Place { position, batch: config.data.batch, rank: 0, ranks: 1 };
        let mut loader = Loader::start(Arc::clone(&dataset), order, place);
        let mut step = Step::new(config, training.model.config());
        while training.step < config.steps {
            let began = Instant::now();
            let done = step.run(training, &mut loader, &|| self.job.request().is_some())?;
            let Some(done) = done else { return self.make_room(training) };
            let mut record = Record::new(training, &done, began.elapsed(), flops_share);
            let is_last = training.step == config.steps;
            if let Some(heldout) = &heldout
                && (is_last || is_due(training.step, config.evaluate.every))
            {
                record.heldout = Some(heldout.score(&training.model)?);
            }
            self.watch.step(record)?;
            let saved = self.saver.poll();
            if matches!(saved, Ok(Some(_))) {
                self.watch.draw()?;
            }
            self.report(saved);
            if !is_last {
                self.save_if_due(training);
            }
        }
        self.save_now(training)?;
        self.watch.draw()?;
        self.job.remember(training.step, self.watch.records())?;
        if let Some(heldout) = heldout.filter(|_| config.evaluate.baseline) {
            self.compare(&dataset, &heldout)?;
        }
        self.watch.note(&format!("step {}: done", training.step));
        Ok(ExitCode::SUCCESS)
    }

    /// Tells how the last step's model does beside models that count.
    fn compare(&self, dataset: &Dataset, heldout: &Heldout) -> Result<()> {
        let last = self.watch.records().last().and_then(|record| record.heldout);
        let model =
            last.context("find the last step's score of the held-out text in metrics.jsonl")?;
        let baseline = Baseline::measure(dataset, heldout, self.manifest.vocabulary)?;
        self.watch.compare(&baseline.beside(model));
        Ok(())
    }

    fn open(&self, entries: &[crate::data::ShardEntry]) -> Result<Dataset> {
        let data = &self.config.data;
        let (folder, sequence) = (&data.folder, data.sequence);
        Ok(Dataset::open(folder, self.manifest, entries, sequence, data.verify)?)
    }

    /// None if nothing was held out.
    fn heldout(&self) -> Result<Option<Heldout>> {
        let entries = &self.manifest.heldout;
        if entries.is_empty() {
            return Ok(None);
        }
        let (dataset, sequences) = (self.open(entries)?, self.config.evaluate.sequences);
        Heldout::new(dataset, &self.config.data.folder, sequences).map(Some)
    }

    /// Tells what begins. Returns the arithmetic of a token as a share of what this machine does in a second.
    fn introduce(&self, training: &Training, sequences: u64) -> f64 {
        let (model, data) = (&training.model, &self.config.data);
        let flops =
            model.config().training_flops(data.sequence, self.config.loss.mtp_weight != 0.0);
        let peak = peak_flops();
        let from = match training.step {
            0 => "from the start".to_owned(),
            step => format!("on from step {step}"),
        };
        let step = data.batch * data.accumulate;
        self.watch.note(&format!(
            "{} parameters, {:.1} MFLOP a token at {:.1} GFLOP/s; an epoch is {:.1} steps; {from}",
            model.weights().len(),
            flops / 1e6,
            peak / 1e9,
            sequences as f64 / step as f64,
        ));
        flops / peak
    }

    fn save_if_due(&mut self, training: &Training) {
        let by_steps = is_due(training.step, self.config.checkpoint.every);
        let rate = self.job.rate();
        // A slot that comes too early is left out; who asked for steps gets all of them.
        if !self.job.is_save_due(by_steps) || (rate.is_some() && self.saver.is_busy()) {
            return;
        }
        let began = Instant::now();
        let earlier = self.saver.wait();
        self.report(earlier);
        if let Err(error) = self.saver.start(self.snapshot(training), rate) {
            return self.report(Err(error));
        }
        self.saved = training.step;
        let waited = began.elapsed().as_millis();
        self.watch.note(&format!("step {}: saving; training waited {waited} ms", training.step));
    }

    fn snapshot(&self, training: &Training) -> Snapshot {
        Snapshot::take(training, self.manifest, self.config.data.sequence)
    }

    /// Saves what there is and ends. A step that was interrupted left no trace in it.
    fn make_room(mut self, training: &Training) -> Result<ExitCode> {
        let request = self.job.request().unwrap_or(Request::Suspend);
        self.watch.note(&format!("step {}: asked to make room", training.step));
        self.save_now(training)?;
        self.watch.draw()?;
        self.job.remember(training.step, self.watch.records())?;
        self.watch.note(&format!("step {}: saved", training.step));
        // The last thing: it ends all that is left of the job.
        self.job.acknowledge(request)
    }

    /// Returns when the state of `training` is on disk.
    fn save_now(&mut self, training: &Training) -> Result<()> {
        self.saver.hurry();
        let earlier = self.saver.wait();
        let is_saved = earlier.is_ok() && self.saved == training.step && training.step > 0;
        self.report(earlier);
        if !is_saved {
            self.saver.start(self.snapshot(training), None)?;
            let saved = self.saver.wait().context("save the last step")?;
            self.report(Ok(saved));
        }
        Ok(())
    }

    /// A save that failed is told, and training goes on: the next may succeed.
    fn report(&mut self, saved: Result<Option<PathBuf>, CheckpointError>) {
        match saved {
            Ok(Some(path)) => self.watch.note(&format!("saved {}", path.display())),
            Ok(None) => {}
            Err(error) => {
                self.saved = 0;
                self.watch.note(&format!("NOT saved: {:#}", anyhow::Error::from(error)));
            }
        }
    }
}

/// 0 is never.
fn is_due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// Where a run's checkpoints are outside of jobs.
fn default_checkpoints(out: &Path) -> PathBuf {
    out.join("checkpoints")
}
