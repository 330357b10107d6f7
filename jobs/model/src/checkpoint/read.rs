//! Weights from files that somebody else wrote: nothing in them is trusted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

use safetensors::{Dtype, tensor::TensorInfo};
use serde_json::Value;

use super::{
    INDEX, SINGLE,
    numbers::is_known,
    parts::{fill, parts, runs},
    shard::Shard,
};
use crate::{Model, ModelConfig, ModelError, Parameters, Tensor, Weights, weights::layer_name};

/// An opened folder.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: ModelConfig,
    /// Files with weights, in order, and the tensors that the index promises in each.
    shards: BTreeMap<PathBuf, BTreeSet<String>>,
}

impl Checkpoint {
    /// Reads `config.json` and the index, not yet the weights.
    ///
    /// # Errors
    /// What [`ModelConfig::read`] refuses, and an index that is none.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let config = ModelConfig::read(folder)?;
        let index = folder.join(INDEX);
        let shards = if index.exists() {
            read_index(folder, &index)?
        } else {
            BTreeMap::from([(folder.join(SINGLE), BTreeSet::new())])
        };
        Ok(Self { folder: folder.to_owned(), config, shards })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The whole model. Files without modules for multi-token prediction (transformers drops them) give a model
    /// without, whatever their configuration says.
    ///
    /// # Errors
    /// Files that are missing, truncated or corrupt; tensors that are missing, too many, of another shape than the
    /// configuration asks for, or of a type that is not f32, bf16, f16 or fp8 with scales.
    pub fn load(self) -> Result<Model, ModelError> {
        self.load_counted(&AtomicU64::new(0))
    }

    /// As [`Self::load`]; `done` grows by the bytes of tensors that are loaded, up to [`Self::bytes`].
    ///
    /// # Errors
    /// As there.
    pub fn load_counted(mut self, done: &AtomicU64) -> Result<Model, ModelError> {
        let shards: Result<Vec<Shard>, _> =
            self.shards.keys().map(|path| Shard::open(path)).collect();
        let shards = shards?;
        let first_module = layer_name(self.config.layers) + ".";
        let mut names = shards.iter().flat_map(Shard::tensors).map(|(name, _)| name);
        if !names.any(|name| name.starts_with(&first_module)) {
            self.config.mtp_layers = 0;
        }
        // Read as everything else and given to their weights afterwards: they may lie in another shard.
        let mut scales = self.scales(&shards)?;
        let shapes: BTreeMap<String, Vec<usize>> =
            scales.iter().map(|(name, scale)| (name.clone(), scale.shape().to_vec())).collect();
        let mut weights = Weights::zeros(&self.config);
        let mut open: BTreeMap<String, &mut Tensor> = BTreeMap::new();
        weights.visit_mut("", &mut |name, tensor| {
            open.insert(name, tensor);
        });
        open.extend(scales.iter_mut().map(|(name, scale)| (name.clone(), scale)));
        let mut all = Vec::new();
        for (shard, promised) in shards.iter().zip(self.shards.values()) {
            if let Some(tensor) = shard.lacks(promised) {
                let expected = open.get(tensor).map_or(Vec::new(), |open| open.shape().to_vec());
                let (path, tensor) = (shard.path.clone(), tensor.clone());
                return Err(ModelError::Missing { path, tensor, expected });
            }
            let mut found = Vec::new();
            for (name, info) in shard.tensors() {
                if self.is_copy(&name) || self.config.fp8_block.is_none() && name.ends_with(SCALE) {
                    continue;
                }
                let Some(into) = open.remove(&name) else {
                    return Err(ModelError::Unexpected { path: shard.path.clone(), tensor: name });
                };
                let block = self.check(shard, &name, info, into, &shapes)?;
                found.extend(parts(shard, info, into, block));
            }
            all.extend(runs(shard, found.into_iter()));
        }
        if let Some((tensor, expected)) = open.first_key_value() {
            return Err(ModelError::Missing {
                path: self.folder.clone(),
                tensor: tensor.clone(),
                expected: expected.shape().to_vec(),
            });
        }
        fill(all, done)?;
        weights.visit_mut("", &mut |name, tensor| {
            if let (Some(fp8), Some(scale)) = (tensor.fp8_mut(), scales.get(&scale_of(&name))) {
                fp8.set_scales(scale.data());
            }
        });
        Ok(Model::new(self.config, weights))
    }

    /// Bytes of all files with weights, headers too.
    ///
    /// # Errors
    /// Files that are missing.
    pub fn bytes(&self) -> Result<u64, ModelError> {
        let len = |path: &PathBuf| {
            let about = fs::metadata(path);
            about
                .map(|about| about.len())
                .map_err(|source| ModelError::Io { path: path.clone(), source })
        };
        self.shards.keys().map(len).sum()
    }

    /// Places for the scales of fp8 blocks, as the files say.
    fn scales(&self, shards: &[Shard]) -> Result<BTreeMap<String, Tensor>, ModelError> {
        let mut scales = BTreeMap::new();
        if self.config.fp8_block.is_none() {
            return Ok(scales);
        }
        for shard in shards {
            for (name, info) in shard.tensors().filter(|(name, _)| name.ends_with(SCALE)) {
                if info.dtype == Dtype::F8_E4M3 {
                    return Err(wrong_dtype(shard, &name, info, "f32, bf16 or f16: it is a scale"));
                }
                scales.insert(name, Tensor::zeros(&info.shape));
            }
        }
        Ok(scales)
    }

    /// Tensors that files repeat: MTP modules share embedding and head with the model, as a tied head does.
    fn is_copy(&self, name: &str) -> bool {
        let in_module = name
            .strip_prefix("model.layers.")
            .and_then(|rest| rest.split_once('.'))
            .filter(|(layer, _)| {
                layer.parse::<usize>().is_ok_and(|layer| layer >= self.config.layers)
            })
            .is_some_and(|(_, part)| {
                part == "embed_tokens.weight" || part == "shared_head.head.weight"
            });
        in_module || (self.config.tied_embedding && name == "lm_head.weight")
    }

    /// Whether what lies in the file is what the model wants, and the block of fp8. `scales`: the shapes of all.
    fn check(
        &self,
        shard: &Shard,
        name: &str,
        info: &TensorInfo,
        into: &Tensor,
        scales: &BTreeMap<String, Vec<usize>>,
    ) -> Result<Option<[usize; 2]>, ModelError> {
        let shape = |tensor: &str, expected: &[usize], found: &[usize]| ModelError::Shape {
            path: shard.path.clone(),
            tensor: tensor.to_owned(),
            expected: expected.to_vec(),
            found: found.to_vec(),
        };
        if info.shape != into.shape() {
            return Err(shape(name, into.shape(), &info.shape));
        }
        check_dtype(shard, name, info)?;
        if info.dtype != Dtype::F8_E4M3 {
            return Ok(None);
        }
        let block = self.config.fp8_block.ok_or_else(|| {
            let expected = "f32, bf16 or f16: config.json has no quantization_config for fp8";
            wrong_dtype(shard, name, info, expected)
        })?;
        let &[rows, cols] = into.shape() else {
            let expected = "f32, bf16 or f16: only matrices have scales";
            return Err(wrong_dtype(shard, name, info, expected));
        };
        let scale_name = scale_of(name);
        let expected = [rows.div_ceil(block[0]), cols.div_ceil(block[1])];
        let Some(scale) = scales.get(&scale_name) else {
            return Err(ModelError::Missing {
                path: shard.path.clone(),
                tensor: scale_name,
                expected: expected.to_vec(),
            });
        };
        if scale[..] != expected {
            return Err(shape(&scale_name, &expected, scale));
        }
        Ok(Some(block))
    }
}

/// Behind the name of a linear block.
const SCALE: &str = ".weight_scale_inv";

/// The name of the scales of a weight.
fn scale_of(weight: &str) -> String {
    format!("{weight}{}", &SCALE[".weight".len()..])
}

fn read_file(path: &Path) -> Result<Vec<u8>, ModelError> {
    fs::read(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })
}

fn read_index(
    folder: &Path,
    index: &Path,
) -> Result<BTreeMap<PathBuf, BTreeSet<String>>, ModelError> {
    let wrong = |detail: String| ModelError::Config { path: index.to_owned(), detail };
    let value: Value =
        serde_json::from_slice(&read_file(index)?).map_err(|e| wrong(format!("no JSON: {e}")))?;
    let map = value["weight_map"].as_object();
    let map =
        map.ok_or_else(|| wrong("no object `weight_map`, expected tensor: file".to_owned()))?;
    let mut shards: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for (tensor, file) in map {
        // A name with a folder in it could reach any file of the machine.
        let file = file
            .as_str()
            .filter(|file| Path::new(file).file_name().is_some_and(|name| name == *file));
        let file = file.ok_or_else(|| {
            wrong(format!("weight_map.{tensor}: expected the name of a file beside"))
        })?;
        shards.entry(folder.join(file)).or_default().insert(tensor.clone());
    }
    Ok(shards)
}

fn check_dtype(shard: &Shard, name: &str, info: &TensorInfo) -> Result<(), ModelError> {
    if is_known(info.dtype) {
        return Ok(());
    }
    Err(wrong_dtype(shard, name, info, "f32, bf16, f16 or fp8 (e4m3)"))
}

fn wrong_dtype(shard: &Shard, name: &str, info: &TensorInfo, expected: &'static str) -> ModelError {
    ModelError::Dtype {
        path: shard.path.clone(),
        tensor: name.to_owned(),
        found: format!("{:?}", info.dtype),
        expected,
    }
}
