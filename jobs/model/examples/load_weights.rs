//! Times loading a model against plain reads of its files, taking turns: four streams, 1 MiB a read, past the page
//! cache, as `ff2ctl bench fs` reads. Each load is in a process of its own, as a server's is: memory that was used
//! before is not as dear. Arguments: FOLDER (on the file system to measure; without a config.json there, a
//! model is written to it first), MiB of weights (1024), `bf16`, `f32` or
//! `fp8` (as DeepSeek has it: linear maps in blocks of 128 x 128 with a scale each, the rest bf16), rounds (5).

use std::{
    borrow::Cow,
    error::Error,
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use ff2_model::{
    Checkpoint, Model, ModelConfig, Parameters, Weights,
    checkpoint::{Precision, write},
};
use rustix::fs::OFlags;
use safetensors::{Dtype, SafeTensors, serialize_to_file, tensor::TensorView};
use serde_json::{Value, json};

type Failure = Box<dyn Error + Send + Sync>;

const MIB: usize = 1 << 20;
/// In the place of the size: load once and tell the time.
const ONCE: &str = "once";
const STREAMS: usize = 4;
/// Direct reads go to memory that begins at a page.
const PAGE: usize = 4096;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("expected a folder for the model")?);
    let mib = arguments.next();
    if mib.as_deref() == Some(ONCE) {
        return load(&folder);
    }
    let mib: usize = mib.as_deref().unwrap_or("1024").parse()?;
    let kind = match arguments.next().as_deref() {
        None | Some("bf16") => Kind::Bf16,
        Some("f32") => Kind::F32,
        Some("fp8") => Kind::Fp8,
        Some(other) => return Err(format!("{other}: expected bf16, f32 or fp8").into()),
    };
    let rounds = arguments.next().as_deref().unwrap_or("5").parse()?;
    if !folder.join("config.json").exists() {
        make(&folder, mib * MIB, kind)?;
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(path);
        }
    }
    files.sort_unstable();
    let bytes = Checkpoint::open(&folder)?.bytes()?;
    println!("{} files, {} MiB", files.len(), bytes / MIB as u64);
    let (mut reads, mut loads) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        read(&files)?;
        reads.push(start.elapsed().as_secs_f64());
        let program = std::env::current_exe()?;
        let said =
            Command::new(program).arg(&folder).arg(ONCE).stderr(Stdio::inherit()).output()?;
        loads.push(String::from_utf8(said.stdout)?.trim().parse()?);
    }
    let rate = |seconds: f64| bytes as f64 / MIB as f64 / seconds;
    let median = |times: &mut Vec<f64>| {
        times.sort_unstable_by(f64::total_cmp);
        rate(times[times.len() / 2])
    };
    println!("plain reads: {:.0?} MiB/s", reads.iter().map(|s| rate(*s)).collect::<Vec<_>>());
    println!("loading: {:.0?} MiB/s", loads.iter().map(|s| rate(*s)).collect::<Vec<_>>());
    let (reads, loads) = (median(&mut reads), median(&mut loads));
    println!(
        "medians: loading {loads:.0}, plain reads {reads:.0} MiB/s, ratio {:.2}",
        loads / reads
    );
    Ok(())
}

/// Prints the seconds that loading takes.
fn load(folder: &Path) -> Result<(), Failure> {
    let start = Instant::now();
    let model = Checkpoint::open(folder)?.load()?;
    println!("{}", start.elapsed().as_secs_f64());
    check(&model)
}

/// How a checkpoint has its numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    F32,
    Bf16,
    Fp8,
}

/// Rows and columns of a block with one scale.
const BLOCK: usize = 128;
/// A power of two, so that it costs no digit.
const SCALE: f32 = 0.5;

/// Number `at` of each tensor: bf16 has it exactly, e4m3 has those of its kind.
fn number(at: usize, is_fp8: bool) -> f32 {
    if is_fp8 { (8 + at % 8) as f32 / 16.0 } else { (at % 251) as f32 / 256.0 }
}

/// The same in e4m3, divided by the scale: one exponent, and three bits that count.
fn e4m3(at: usize) -> u8 {
    0x38 | (at % 8) as u8
}

/// A model of about so many bytes, in files of an eighth of them.
fn make(folder: &Path, bytes: usize, kind: Kind) -> Result<(), Failure> {
    let (size, precision) = match kind {
        Kind::F32 => (4, Precision::F32),
        Kind::Bf16 => (2, Precision::Bf16),
        Kind::Fp8 => (1, Precision::Bf16),
    };
    let config = |layers: usize| {
        ModelConfig::from_json(serde_json::json!({
            "model_type": "deepseek_v3", "vocab_size": 16384, "hidden_size": 1024, "intermediate_size": 2816,
            "moe_intermediate_size": 512, "num_hidden_layers": layers, "first_k_dense_replace": 1,
            "num_attention_heads": 16, "q_lora_rank": 384, "kv_lora_rank": 256, "qk_nope_head_dim": 64,
            "qk_rope_head_dim": 32, "v_head_dim": 64, "n_shared_experts": 1, "n_routed_experts": 32,
            "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "num_nextn_predict_layers": 0,
            "max_position_embeddings": 4096
        }))
    };
    let parameters = |layers| Ok::<_, Failure>(Weights::zeros(&config(layers)?).len());
    let (one, two) = (parameters(1)?, parameters(2)?);
    let layers = 1 + (bytes / size).saturating_sub(one).div_ceil(two - one);
    let config = config(layers)?;
    let mut weights = Weights::zeros(&config);
    weights.visit_mut("", &mut |_, tensor| {
        tensor
            .data_mut()
            .iter_mut()
            .enumerate()
            .for_each(|(at, x)| *x = number(at, kind == Kind::Fp8));
    });
    fs::create_dir_all(folder)?;
    // Quantised, the shards of bf16 are about half as large.
    write(
        &Model::new(config, weights),
        folder,
        precision,
        bytes / 8 * if kind == Kind::Fp8 { 2 } else { 1 },
    )?;
    if kind == Kind::Fp8 {
        quantise(folder)?;
    }
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    Ok(())
}

/// A tensor's name, type, shape and bytes.
type Stored<'a> = (String, Dtype, Vec<usize>, Cow<'a, [u8]>);

/// Makes a checkpoint of bf16 one of fp8, file by file.
fn quantise(folder: &Path) -> Result<(), Failure> {
    let (index_path, config_path) =
        (folder.join("model.safetensors.index.json"), folder.join("config.json"));
    let mut index: Value = serde_json::from_slice(&fs::read(&index_path)?)?;
    let mut config: Value = serde_json::from_slice(&fs::read(&config_path)?)?;
    let quantised =
        json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK]});
    config["quantization_config"] = quantised;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let bytes = fs::read(&path)?;
        let mut stored: Vec<Stored<'_>> = Vec::new();
        for (name, tensor) in SafeTensors::deserialize(&bytes)?.tensors() {
            let is_linear = name.contains("_proj") && name.ends_with(".weight");
            let shape = tensor.shape().to_vec();
            let [rows, cols] = shape[..] else {
                stored.push((name, tensor.dtype(), shape, tensor.data().into()));
                continue;
            };
            if !is_linear {
                stored.push((name, tensor.dtype(), shape, tensor.data().into()));
                continue;
            }
            let scale = format!("{name}_scale_inv");
            index["weight_map"][&scale] = index["weight_map"][&name].clone();
            let blocks = vec![rows.div_ceil(BLOCK), cols.div_ceil(BLOCK)];
            let scales = SCALE.to_le_bytes().repeat(blocks[0] * blocks[1]);
            stored.push((scale, Dtype::F32, blocks, scales.into()));
            let numbers: Vec<u8> = (0..rows * cols).map(e4m3).collect();
            stored.push((name, Dtype::F8_E4M3, shape, numbers.into()));
        }
        let views = stored.iter().map(|(name, dtype, shape, data)| {
            Ok((name, TensorView::new(*dtype, shape.clone(), data)?))
        });
        let views = views.collect::<Result<Vec<_>, Failure>>()?;
        serialize_to_file(views, None, &path)?;
    }
    fs::write(index_path, index.to_string())?;
    Ok(fs::write(config_path, config.to_string())?)
}

fn check(model: &Model) -> Result<(), Failure> {
    let is_fp8 = model.config().fp8_block.is_some();
    let mut wrong = None;
    model.weights().visit("", &mut |name, tensor| {
        if tensor.data().iter().enumerate().any(|(at, x)| *x != number(at, is_fp8)) {
            wrong = Some(name);
        }
    });
    wrong.map_or(Ok(()), |name| Err(format!("{name} was not loaded as it was written").into()))
}

fn read(files: &[PathBuf]) -> Result<(), Failure> {
    let queue = Mutex::new(files.iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        let stream = || {
            let mut buffer = vec![0; MIB + PAGE];
            let from = buffer.as_ptr().align_offset(PAGE);
            while let Some(path) = next() {
                let flags = OFlags::DIRECT.bits().cast_signed();
                let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
                let mut at = 0;
                loop {
                    let got = file.read_at(&mut buffer[from..from + MIB], at)?;
                    at += got as u64;
                    if got < MIB {
                        break;
                    }
                }
            }
            Ok(())
        };
        let streams: Vec<_> = (0..STREAMS).map(|_| scope.spawn(stream)).collect();
        streams.into_iter().try_for_each(|stream| stream.join().expect("streams do not panic"))
    })
}
