//! A folder that transformers and other readers of Hugging Face layout load.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use safetensors::{Dtype, View, serialize_to_file};
use serde_json::json;

use super::{INDEX, SINGLE};
use crate::{Model, ModelError, Parameters, Precision, Tensor, is_trained};

/// Writes `config.json` and the weights, in shards of at most `shard_bytes` (a larger tensor has one for itself).
///
/// # Errors
/// Files that cannot be written.
pub fn write(
    model: &Model,
    folder: &Path,
    precision: Precision,
    shard_bytes: usize,
) -> Result<(), ModelError> {
    fs::create_dir_all(folder).map_err(io(folder))?;
    let dtype = if precision == Precision::Bf16 { "bfloat16" } else { "float32" };
    write_json(&folder.join("config.json"), &model.config().to_json(dtype))?;
    let mut shards: Vec<Vec<(String, Stored<'_>)>> = vec![Vec::new()];
    let (mut filled, mut total) = (0, 0);
    model.weights().visit("", &mut |name, tensor| {
        // Steps of the gate's biases are smaller than bf16 can tell.
        let precision = if is_trained(&name) { precision } else { Precision::F32 };
        let stored = Stored { tensor, precision };
        let len = stored.data_len();
        if filled > 0 && filled + len > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += len;
        total += len;
        shards.last_mut().expect("one at least").push((name, stored));
    });
    let count = shards.len();
    let mut map = BTreeMap::new();
    for (number, shard) in shards.into_iter().enumerate() {
        let file = match count {
            1 => SINGLE.to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        map.extend(shard.iter().map(|(name, _)| (name.clone(), file.clone())));
        let path = folder.join(file);
        // transformers reads no file that does not say for whom it is.
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        serialize_to_file(shard, Some(format), &path)
            .map_err(|source| ModelError::Safetensors { path, source })?;
    }
    let index = folder.join(INDEX);
    if count > 1 {
        return write_json(&index, &json!({"metadata": {"total_size": total}, "weight_map": map}));
    }
    match fs::remove_file(&index) {
        // An older index would hide the new file.
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(io(&index)(source)),
        _ => Ok(()),
    }
}

/// Copies `tokenizer.json` and what belongs to it, as far as it is there.
///
/// # Errors
/// Files that cannot be read or written.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<(), ModelError> {
    for file in [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    ] {
        let source = from.join(file);
        if source.exists() {
            fs::copy(&source, to.join(file)).map_err(io(&source))?;
        }
    }
    Ok(())
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), ModelError> {
    fs::write(path, format!("{value:#}\n")).map_err(io(path))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ModelError {
    let path = path.to_owned();
    move |source| ModelError::Io { path, source }
}

#[derive(Debug, Clone, Copy)]
struct Stored<'a> {
    tensor: &'a Tensor,
    precision: Precision,
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self.precision {
            Precision::F32 => Dtype::F32,
            Precision::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let numbers = self.tensor.data().iter();
        Cow::Owned(match self.precision {
            Precision::F32 => numbers.flat_map(|x| x.to_le_bytes()).collect(),
            Precision::Bf16 => {
                numbers.flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()
            }
        })
    }

    fn data_len(&self) -> usize {
        self.tensor.data().len() * if self.precision == Precision::F32 { 4 } else { 2 }
    }
}
