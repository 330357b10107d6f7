//! What a run is: one TOML file, each key of which `--set key=value` can replace.

mod load;

use std::path::PathBuf;

use ff2_model::Precision;
use serde::{Deserialize, Serialize};

pub(crate) use load::load;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RunConfig {
    /// Folder of metrics, curves and (outside of jobs) checkpoints; made if it is not there.
    pub(crate) out: PathBuf,
    /// Optimizer steps of the whole run.
    pub(crate) steps: u64,
    /// Decides start weights and the order of the text. Default 1.
    pub(crate) seed: u64,
    /// Threads that compute; 0, the default: all processors.
    pub(crate) threads: usize,
    /// Compute the insides of layers again in the backward instead of keeping them. Default false.
    pub(crate) recompute: bool,
    /// What products multiply; weights, sums and all else are f32. Default f32.
    pub(crate) precision: Precision,
    pub(crate) data: Data,
    /// Either `from`, a folder in Hugging Face layout to go on from, or the keys of a `config.json`.
    pub(crate) model: toml::Table,
    pub(crate) optimizer: Optimizer,
    pub(crate) schedule: Schedule,
    pub(crate) loss: Loss,
    pub(crate) evaluate: Evaluate,
    pub(crate) checkpoint: CheckpointConfig,
    pub(crate) parallel: ParallelConfig,
    pub(crate) show: Show,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            out: PathBuf::new(),
            steps: 0,
            seed: 1,
            threads: 0,
            recompute: false,
            precision: Precision::F32,
            data: Data::default(),
            model: toml::Table::new(),
            optimizer: Optimizer::default(),
            schedule: Schedule::default(),
            loss: Loss::default(),
            evaluate: Evaluate::default(),
            checkpoint: CheckpointConfig::default(),
            parallel: ParallelConfig::default(),
            show: Show::default(),
        }
    }
}

impl RunConfig {
    /// What all ranks of a run must have alike: all but folders, threads and what is shown and kept.
    pub(crate) fn of_all_ranks(&self) -> Self {
        Self {
            out: PathBuf::new(),
            threads: 0,
            data: Data {
                folder: PathBuf::new(),
                mount_config: PathBuf::new(),
                verify: true,
                ..self.data.clone()
            },
            checkpoint: CheckpointConfig::default(),
            show: Show::default(),
            ..self.clone()
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Data {
    /// Folder that `ff2-train tokenize` wrote, or `ff2://VOLUME/PATH` to read it without a mount.
    pub(crate) folder: PathBuf,
    /// Configuration of a mount of the cluster, for `ff2://`: where the cluster is, and as whom it is read.
    pub(crate) mount_config: PathBuf,
    /// Tokens of a sequence, at least 2. Default 256.
    pub(crate) sequence: usize,
    /// Sequences that are computed at once, by all ranks together. Default 8.
    pub(crate) batch: usize,
    /// Batches whose gradients make one step. Default 1.
    pub(crate) accumulate: usize,
    /// Read all shards once at the start and compare their checksums. Default true.
    pub(crate) verify: bool,
}

impl Default for Data {
    fn default() -> Self {
        let (folder, mount_config) = (PathBuf::new(), PathBuf::new());
        Self { folder, mount_config, sequence: 256, batch: 8, accumulate: 1, verify: true }
    }
}

/// AdamW; norms and biases do not decay. Defaults are DeepSeek-V3's, the learning rate a small model's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Optimizer {
    /// The highest of the schedule. Default 1e-3.
    pub(crate) learning_rate: f64,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) eps: f32,
    pub(crate) weight_decay: f32,
    /// Gradients with a larger norm are scaled down to it; 0: never. Default 1.
    pub(crate) clip: f64,
}

impl Default for Optimizer {
    fn default() -> Self {
        let (beta1, beta2, eps, weight_decay) = (0.9, 0.95, 1e-8, 0.1);
        Self { learning_rate: 1e-3, beta1, beta2, eps, weight_decay, clip: 1.0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ScheduleKind {
    /// Half a cosine wave from the highest rate to the final one.
    Cosine,
    /// Warm-up, stable, decay: the highest rate up to the last steps, then a straight line down.
    Wsd,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Schedule {
    pub(crate) kind: ScheduleKind,
    /// Steps in which the rate rises to its highest. Default 100.
    pub(crate) warmup: u64,
    /// The last rate, as a share of the highest. Default 0.1.
    pub(crate) final_share: f64,
    /// Of wsd: the share of all steps that decay. Default 0.2.
    pub(crate) decay_share: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        let kind = ScheduleKind::Cosine;
        Self { kind, warmup: 100, final_share: 0.1, decay_share: 0.2 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Loss {
    /// What multi-token prediction counts beside the next token. Default 0.3.
    pub(crate) mtp_weight: f32,
    /// How far a gate's bias moves in a step towards equal load of the experts. Default 1e-3.
    pub(crate) balance_speed: f32,
    /// Steps in a row that may be left out because of a loss or gradient that is no number. Default 10.
    pub(crate) bad_steps_max: u32,
}

impl Default for Loss {
    fn default() -> Self {
        Self { mtp_weight: 0.3, balance_speed: 1e-3, bad_steps_max: 10 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Evaluate {
    /// Steps between two looks at the held-out text; 0: only at the end. Default 200.
    pub(crate) every: u64,
    /// Sequences of it, at most. Default 64.
    pub(crate) sequences: u64,
    /// Tell at the end whether the model knows it better than a bigram and a trigram model do. Default false.
    pub(crate) baseline: bool,
}

impl Default for Evaluate {
    fn default() -> Self {
        Self { every: 200, sequences: 64, baseline: false }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CheckpointConfig {
    /// Where they are; empty, the default: `FF2_CHECKPOINT` in a job, else `checkpoints` in `out`.
    pub(crate) folder: PathBuf,
    /// Steps between two; 0: none but the last. A job with a slot keeps to that instead. Default 500.
    pub(crate) every: u64,
    /// So many of the newest are kept, at least 1. Default 3.
    pub(crate) keep: usize,
    /// Bytes of a file of it, at most (a larger tensor has one for itself). Default 1 GiB.
    pub(crate) file_bytes: u64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { folder: PathBuf::new(), every: 500, keep: 3, file_bytes: 1 << 30 }
    }
}

/// Of a run on several ranks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ParallelConfig {
    /// So many neighbouring ranks share the experts. Default 1: each rank has all.
    pub(crate) expert_ranks: usize,
    /// Each rank keeps the optimizer's moments of its part alone. Default true.
    pub(crate) zero1: bool,
    /// What ranks of different hosts exchange is encrypted (TLS 1.3). Default false.
    pub(crate) encrypt: bool,
}

impl Default for ParallelConfig {
    fn default() -> Self {
        Self { expert_ranks: 1, zero1: true, encrypt: false }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Show {
    /// Steps between two lines, where there is no terminal. Default 10.
    pub(crate) every: u64,
    /// `host:port` where metrics are served for Prometheus; empty, the default: nowhere.
    pub(crate) http_listen: String,
}

impl Default for Show {
    fn default() -> Self {
        Self { every: 10, http_listen: String::new() }
    }
}
