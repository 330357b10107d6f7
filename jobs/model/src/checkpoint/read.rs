//! Weights from files that somebody else wrote: nothing in them is trusted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;

use super::{
    INDEX, SINGLE,
    fp8::{e4m3, scale_blocks},
};
use crate::{Model, ModelConfig, ModelError, Parameters, Tensor, Weights};

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
    pub fn load(mut self) -> Result<Model, ModelError> {
        let scales = self.gather()?;
        let mut weights = Weights::zeros(&self.config);
        let mut open: BTreeMap<String, &mut Tensor> = BTreeMap::new();
        weights.visit_mut("", &mut |name, tensor| {
            open.insert(name, tensor);
        });
        for (path, promised) in &self.shards {
            let bytes = read_file(path)?;
            let shard = parse(path, &bytes)?;
            for name in promised {
                if shard.tensor(name).is_err() {
                    let expected =
                        open.get(name).map_or(Vec::new(), |tensor| tensor.shape().to_vec());
                    return Err(ModelError::Missing {
                        path: path.clone(),
                        tensor: name.clone(),
                        expected,
                    });
                }
            }
            for (name, found) in shard.iter() {
                if name.ends_with(SCALE) || self.is_copy(name) {
                    continue;
                }
                let into = open.remove(name).ok_or_else(|| ModelError::Unexpected {
                    path: path.clone(),
                    tensor: name.to_owned(),
                })?;
                self.fill(path, name, &found, into, &scales)?;
            }
        }
        if let Some((tensor, expected)) = open.first_key_value() {
            return Err(ModelError::Missing {
                path: self.folder.clone(),
                tensor: tensor.clone(),
                expected: expected.shape().to_vec(),
            });
        }
        Ok(Model::new(self.config, weights))
    }

    /// Before the weights: scales of fp8 blocks, which may lie in another shard, and whether MTP modules are there.
    fn gather(&mut self) -> Result<BTreeMap<String, Tensor>, ModelError> {
        let mut scales = BTreeMap::new();
        if self.config.fp8_block.is_none() && self.config.mtp_layers == 0 {
            return Ok(scales);
        }
        let first_module = format!("model.layers.{}.", self.config.layers);
        let mut has_modules = false;
        for path in self.shards.keys() {
            let bytes = read_file(path)?;
            for (name, found) in parse(path, &bytes)?.iter() {
                has_modules |= name.starts_with(&first_module);
                if name.ends_with(SCALE) {
                    let numbers = decode(path, name, &found)?;
                    let scale = Tensor::new(found.shape(), numbers);
                    scales.extend(scale.map(|scale| (name.to_owned(), scale)));
                }
            }
        }
        if !has_modules {
            self.config.mtp_layers = 0;
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

    fn fill(
        &self,
        path: &Path,
        name: &str,
        found: &TensorView<'_>,
        into: &mut Tensor,
        scales: &BTreeMap<String, Tensor>,
    ) -> Result<(), ModelError> {
        let shape = |tensor: &str, expected: &[usize], found: &[usize]| ModelError::Shape {
            path: path.to_owned(),
            tensor: tensor.to_owned(),
            expected: expected.to_vec(),
            found: found.to_vec(),
        };
        if found.shape() != into.shape() {
            return Err(shape(name, into.shape(), found.shape()));
        }
        into.data_mut().copy_from_slice(&decode(path, name, found)?);
        if found.dtype() != Dtype::F8_E4M3 {
            return Ok(());
        }
        let expected = "f32, bf16 or f16: config.json has no quantization_config for fp8";
        let block =
            self.config.fp8_block.ok_or_else(|| wrong_dtype(path, name, found, expected))?;
        let &[rows, cols] = into.shape() else {
            return Err(wrong_dtype(
                path,
                name,
                found,
                "f32, bf16 or f16: only matrices have scales",
            ));
        };
        let scale_name = format!("{name}{}", &SCALE[".weight".len()..]);
        let expected = [rows.div_ceil(block[0]), cols.div_ceil(block[1])];
        let scale = scales.get(&scale_name).ok_or_else(|| ModelError::Missing {
            path: path.to_owned(),
            tensor: scale_name.clone(),
            expected: expected.to_vec(),
        })?;
        if scale.shape() != expected {
            return Err(shape(&scale_name, &expected, scale.shape()));
        }
        scale_blocks(into.data_mut(), cols, block, scale.data());
        Ok(())
    }
}

/// Behind the name of a linear block.
const SCALE: &str = ".weight_scale_inv";

fn read_file(path: &Path) -> Result<Vec<u8>, ModelError> {
    fs::read(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>, ModelError> {
    SafeTensors::deserialize(bytes)
        .map_err(|source| ModelError::Safetensors { path: path.to_owned(), source })
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

/// Numbers as f32; of fp8 without its scales.
fn decode(path: &Path, name: &str, found: &TensorView<'_>) -> Result<Vec<f32>, ModelError> {
    let bytes = found.data();
    let pairs = || bytes.as_chunks::<2>().0.iter();
    Ok(match found.dtype() {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::BF16 => pairs().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F16 => pairs().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F8_E4M3 => bytes.iter().map(|b| e4m3(*b)).collect(),
        _ => return Err(wrong_dtype(path, name, found, "f32, bf16, f16 or fp8 (e4m3)")),
    })
}

fn wrong_dtype(
    path: &Path,
    name: &str,
    found: &TensorView<'_>,
    expected: &'static str,
) -> ModelError {
    ModelError::Dtype {
        path: path.to_owned(),
        tensor: name.to_owned(),
        found: format!("{:?}", found.dtype()),
        expected,
    }
}
