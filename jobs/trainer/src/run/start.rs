//! Where a run begins: at random weights, at a model of others, or at its own newest checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ff2_model::{AdamW, Checkpoint, Exchange, Model, ModelConfig, Weights};
use ff2_parallel::{Parallel, Plan, Settings, Share};
use serde_json::Value;

use super::ranks::Ranks;
use crate::{
    checkpoint::{self, Shared, speed},
    config::RunConfig,
    data::{DataError, Manifest, TOKENIZER, hex, tokenizer_hash},
};

/// All that changes while a run goes on, and that its checkpoints keep.
#[derive(Debug)]
pub(crate) struct Training {
    pub(crate) model: Model,
    pub(crate) optimizer: Optimizer,
    /// Steps that are done.
    pub(crate) step: u64,
    /// Sequences that were seen.
    pub(crate) position: u64,
    /// Tokens that were seen.
    pub(crate) tokens: u64,
    /// Bad steps in a row, up to now.
    pub(crate) bad_steps: u32,
}

/// Who has the moments of the gradients.
#[derive(Debug)]
pub(crate) enum Optimizer {
    Whole(Box<AdamW>),
    /// This rank has its part of the model and of the moments.
    Divided(Box<Parallel>),
}

impl Training {
    /// Gives this rank its part of the model and of the optimizer.
    fn divide(&mut self, ranks: &Ranks, config: &RunConfig) -> Result<()> {
        let Optimizer::Whole(adamw) = &self.optimizer else { return Ok(()) };
        let AdamW { beta1, beta2, eps, weight_decay, .. } = **adamw;
        let settings = Settings { beta1, beta2, eps, weight_decay };
        let mut parallel = Parallel::new(ranks.stream(), plan(config), settings, &mut self.model)?;
        let (first, second) = adamw.moments();
        parallel.restore(adamw.steps(), first, second);
        self.optimizer = Optimizer::Divided(Box::new(parallel));
        Ok(())
    }

    /// The ranks that share the experts, if they do.
    pub(super) fn exchange(&self) -> Option<&dyn Exchange> {
        match &self.optimizer {
            Optimizer::Whole(_) => None,
            Optimizer::Divided(parallel) => parallel.exchange(),
        }
    }
}

fn plan(config: &RunConfig) -> Plan {
    let (expert_ranks, zero1) = (config.parallel.expert_ranks, config.parallel.zero1);
    Plan { expert_ranks, zero1, ..Plan::default() }
}

/// Rank 0 looks first, because it may set checkpoints aside. Gives what people should know of that, too.
pub(super) fn start(
    config: &RunConfig,
    manifest: &Manifest,
    checkpoints: &Path,
    (ranks, resume_from): (&Ranks, Option<u64>),
) -> Result<(Training, Vec<String>)> {
    let share = |model: &ModelConfig| match ranks.is_alone() {
        true => None,
        // What cannot be divided is refused when it is.
        false => Share::new(model, &plan(config), ranks.rank(), ranks.count()).ok(),
    };
    let from = (checkpoints, resume_from);
    let (mut training, notes) = ranks.first_alone(|| state(config, manifest, from, &share))?;
    ranks.begin_at(training.step)?;
    if !ranks.is_alone() {
        training.divide(ranks, config)?;
    }
    Ok((training, notes))
}

fn state(
    config: &RunConfig,
    manifest: &Manifest,
    (checkpoints, resume_from): (&Path, Option<u64>),
    share: Shared<'_>,
) -> Result<(Training, Vec<String>)> {
    let mut notes = Vec::new();
    let mut training = match checkpoint::resume(checkpoints, resume_from, share)? {
        Some(mut resumed) => {
            notes = std::mem::take(&mut resumed.passed_over);
            let (head, path) = (&resumed.head, resumed.folder.display());
            notes.push(format!(
                "read {:.0} % of {path}: {}",
                100.0 * resumed.read_bytes as f64 / resumed.all_bytes.max(1) as f64,
                speed(resumed.read_bytes, resumed.took)
            ));
            if from(config)?.is_none() {
                let mut asked = shape(config, manifest)?;
                let found = resumed.model.config();
                // Not of the weights: may change.
                asked.initializer_range = found.initializer_range;
                asked.max_positions = found.max_positions;
                ensure!(
                    *found == asked,
                    "{path} is of another model than the configuration's [model]: {found:?}, expected {asked:?}"
                );
            }
            if head.tokenizer != manifest.tokenizer {
                let (path, by) = (resumed.folder.clone(), "the dataset's".to_owned());
                let (found, expected) = (head.tokenizer.clone(), manifest.tokenizer.clone());
                return Err(DataError::Tokenizer { path, found, by, expected }.into());
            }
            ensure!(
                head.sequence == config.data.sequence,
                "data.sequence is {}, expected {}, with which {path} was trained; for another one begin a run with \
                 model.from = an export of it",
                config.data.sequence,
                head.sequence,
            );
            resumed.into_training()
        }
        None => fresh(config, manifest)?,
    };
    training.model.set_recompute(config.recompute);
    if let Optimizer::Whole(into) = &mut training.optimizer {
        let o = &config.optimizer;
        (into.beta1, into.beta2, into.eps) = (o.beta1, o.beta2, o.eps);
        into.weight_decay = o.weight_decay;
    }
    Ok((training, notes))
}

fn fresh(config: &RunConfig, manifest: &Manifest) -> Result<Training> {
    let model = match from(config)? {
        Some(folder) => load(&folder, config, manifest)?,
        None => {
            let shape = shape(config, manifest)?;
            let weights = Weights::random(&shape, config.seed);
            Model::new(shape, weights)
        }
    };
    let optimizer = Optimizer::Whole(Box::new(AdamW::new(model.config())));
    Ok(Training { model, optimizer, step: 0, position: 0, tokens: 0, bad_steps: 0 })
}

/// A model of others, whose tokenizer must be the dataset's.
fn load(folder: &Path, config: &RunConfig, manifest: &Manifest) -> Result<Model> {
    let tokenizer = folder.join(TOKENIZER);
    if tokenizer.exists() {
        let expected = hex(&tokenizer_hash(&tokenizer)?);
        if expected != manifest.tokenizer {
            let (path, by) = (config.data.folder.clone(), tokenizer.display().to_string());
            let found = manifest.tokenizer.clone();
            return Err(DataError::Tokenizer { path, found, by, expected }.into());
        }
    }
    let model = Checkpoint::open(folder)?.load()?;
    check_vocab(model.config(), manifest)?;
    Ok(model)
}

/// What the configuration's keys ask for, the dataset's vocabulary and marks filled in.
fn shape(config: &RunConfig, manifest: &Manifest) -> Result<ModelConfig> {
    let mut keys = serde_json::to_value(&config.model).context("read [model]")?;
    let mut default = |key: &str, value: Value| {
        keys.as_object_mut().map(|keys| keys.entry(key).or_insert(value));
    };
    default("model_type", "deepseek_v3".into());
    default("vocab_size", manifest.vocabulary.into());
    default("eos_token_id", manifest.end_of_text.into());
    default("max_position_embeddings", config.data.sequence.into());
    let shape = ModelConfig::from_json(keys)
        .map_err(|detail| anyhow::anyhow!("the configuration's [model]: {detail}"))?;
    check_vocab(&shape, manifest)?;
    Ok(shape)
}

fn check_vocab(shape: &ModelConfig, manifest: &Manifest) -> Result<()> {
    ensure!(
        shape.vocab >= manifest.vocabulary as usize,
        "vocab_size is {}, expected at least the {} of the dataset's tokenizer",
        shape.vocab,
        manifest.vocabulary,
    );
    Ok(())
}

fn from(config: &RunConfig) -> Result<Option<PathBuf>> {
    match config.model.get("from") {
        None => Ok(None),
        Some(toml::Value::String(folder)) if config.model.len() == 1 => Ok(Some(folder.into())),
        Some(found) => bail!("model.from is {found} beside other keys, expected a folder alone"),
    }
}
