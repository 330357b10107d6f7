//! `ff2-train export`: the model of a checkpoint as a folder that transformers, inference servers and
//! `ff2-train run` (`model.from`) load.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ff2_model::checkpoint::{Precision, copy_tokenizer, write};
use serde_json::json;

use crate::{
    checkpoint,
    data::{TOKENIZER, hex, tokenizer_hash},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of a run's checkpoints, or of one of them
    #[arg(long)]
    checkpoint: PathBuf,
    /// Folder to write
    #[arg(long)]
    out: PathBuf,
    /// The step; without it the newest
    #[arg(long)]
    step: Option<u64>,
    /// Store weights as bf16 instead of f32
    #[arg(long)]
    bf16: bool,
    /// Bytes of a file of weights, at most
    #[arg(long, default_value_t = 4 << 30, value_name = "BYTES")]
    shard_bytes: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = &arguments.checkpoint;
    let step = match arguments.step {
        Some(step) => checkpoint::step_folder(folder, step),
        None => match checkpoint::newest(folder)? {
            Some(step) => checkpoint::step_folder(folder, step),
            None if folder.join(TOKENIZER).exists() => folder.clone(),
            None => bail!("{}: no checkpoints, expected folders step-N", folder.display()),
        },
    };
    let read = checkpoint::read(&step).with_context(|| format!("read {}", step.display()))?;
    let tokenizer = step.join(TOKENIZER);
    let found = hex(&tokenizer_hash(&tokenizer)?);
    ensure!(
        found == read.head.tokenizer,
        "{}: sha256 {found}, expected {} by the checkpoint's index",
        tokenizer.display(),
        read.head.tokenizer
    );
    let precision = if arguments.bf16 { Precision::Bf16 } else { Precision::F32 };
    write(&read.model, &arguments.out, precision, arguments.shard_bytes)?;
    copy_tokenizer(&step, &arguments.out)?;
    let config = read.model.config();
    let generation = json!({
        "bos_token_id": config.bos,
        "eos_token_id": config.eos.first(),
        "pad_token_id": config.eos.first(),
        "do_sample": false,
    });
    let path = arguments.out.join("generation_config.json");
    fs::write(&path, format!("{generation:#}\n"))
        .with_context(|| format!("write {}", path.display()))?;
    println!(
        "{} of step {} as {}",
        arguments.out.display(),
        read.head.step,
        if arguments.bf16 { "bf16" } else { "f32" }
    );
    Ok(())
}
