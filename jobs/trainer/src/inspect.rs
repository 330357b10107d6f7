//! Writes what a model computes, for comparison with another implementation.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use ff2_model::{Cache, Checkpoint, Model, Parameters, Tensor, Tokens, Weights, is_trained};
use safetensors::{Dtype, SafeTensors, View, serialize_to_file};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of the model, in Hugging Face layout
    #[arg(long)]
    model: PathBuf,
    /// safetensors file with `input_ids`, [batch, tokens] of i64 or i32
    #[arg(long)]
    input: PathBuf,
    /// safetensors file to write: `logits` [batch, tokens, vocab], `hidden.N` [batch, tokens, hidden] and more
    #[arg(long)]
    out: PathBuf,
    /// Also `decode_logits` [batch, tokens, vocab]: this many tokens at once, the rest one by one from the cache
    #[arg(long, value_name = "TOKENS")]
    prefill: Option<usize>,
    /// Also `greedy` [batch, N]: the likeliest N tokens behind the input
    #[arg(long, value_name = "N")]
    generate: Option<usize>,
    /// Also `grad.NAME` of every weight, those of `loss`
    #[arg(long)]
    grad: bool,
    /// Threads; without it, all processors
    #[arg(long)]
    threads: Option<usize>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(arguments.threads.unwrap_or(0)).build()?;
    pool.install(|| inspect(arguments))
}

fn inspect(arguments: &Arguments) -> Result<()> {
    let model = Checkpoint::open(&arguments.model)?.load()?;
    let tokens = read_tokens(&arguments.input, model.config().vocab)?;
    let mut out = BTreeMap::new();
    let forward = model.forward(&tokens);
    for (number, hidden) in forward.hidden().enumerate() {
        out.insert(format!("hidden.{number}"), by_token(&tokens, hidden));
    }
    out.insert("logits".to_owned(), by_token(&tokens, &model.logits(&forward)));
    drop(forward);
    if tokens.tokens() > 1 {
        let mut grad = Weights::zeros(model.config());
        let loss = model.step(&tokens, 0.0, &mut grad)?;
        out.insert("loss".to_owned(), Output::f32(Vec::new(), &[loss.main as f32]));
        if arguments.grad {
            grad.visit("", &mut |name, tensor| {
                if is_trained(&name) {
                    let output = Output::f32(tensor.shape().to_vec(), tensor.data());
                    out.insert(format!("grad.{name}"), output);
                }
            });
        }
    } else if arguments.grad {
        bail!("{}: gradients need sequences of at least 2 tokens", arguments.input.display());
    }
    if let Some(prefill) = arguments.prefill {
        out.insert("decode_logits".to_owned(), decode(&model, &tokens, prefill)?);
    }
    if let Some(count) = arguments.generate {
        let texts = model.greedy(&tokens, count)?;
        let ids = texts.iter().flatten().flat_map(|id| i64::from(*id).to_le_bytes()).collect();
        let shape = vec![tokens.batch(), count];
        out.insert("greedy".to_owned(), Output { dtype: Dtype::I64, shape, bytes: ids });
    }
    serialize_to_file(out, None, &arguments.out)
        .with_context(|| format!("write {}", arguments.out.display()))
}

fn decode(model: &Model, tokens: &Tokens, prefill: usize) -> Result<Output> {
    let len = tokens.tokens();
    ensure!(
        prefill >= 1 && prefill <= len,
        "--prefill {prefill}, expected 1 to the {len} tokens of a sequence"
    );
    let mut cache = Cache::new(model.config(), tokens.batch());
    let mut steps = vec![(prefill, model.decode(&tokens.range(0, prefill), &mut cache)?)];
    for at in prefill..len {
        steps.push((1, model.decode(&tokens.range(at, at + 1), &mut cache)?));
    }
    let vocab = model.config().vocab;
    let mut all = Vec::with_capacity(tokens.batch() * len * vocab);
    for sequence in 0..tokens.batch() {
        for (count, logits) in &steps {
            all.extend(&logits.data()[sequence * count * vocab..][..count * vocab]);
        }
    }
    Ok(Output::f32(vec![tokens.batch(), len, vocab], &all))
}

fn read_tokens(path: &Path, vocab: usize) -> Result<Tokens> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes)
        .with_context(|| format!("{}: no whole safetensors file", path.display()))?;
    let Ok(found) = file.tensor("input_ids") else {
        bail!("{}: no tensor `input_ids`, expected one of shape [batch, tokens]", path.display());
    };
    let &[_, tokens] = found.shape() else {
        bail!(
            "{}: `input_ids` has shape {:?}, expected [batch, tokens]",
            path.display(),
            found.shape()
        );
    };
    let ids: Vec<i64> = match found.dtype() {
        Dtype::I64 => found.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        Dtype::I32 => {
            found.data().as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect()
        }
        other => bail!("{}: `input_ids` is {other:?}, expected i64 or i32", path.display()),
    };
    let ids = ids.iter().map(|&id| {
        u32::try_from(id).with_context(|| {
            format!("{}: `input_ids` has {id}, expected token ids", path.display())
        })
    });
    let tokens = Tokens::new(ids.collect::<Result<_>>()?, tokens, vocab);
    tokens.with_context(|| format!("read {}", path.display()))
}

/// [batch * tokens, width] as [batch, tokens, width].
fn by_token(tokens: &Tokens, rows: &Tensor) -> Output {
    let width = rows.data().len() / tokens.ids().len();
    Output::f32(vec![tokens.batch(), tokens.tokens(), width], rows.data())
}

struct Output {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Output {
    fn f32(shape: Vec<usize>, numbers: &[f32]) -> Self {
        Self {
            dtype: Dtype::F32,
            shape,
            bytes: numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
}

impl View for Output {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
