//! `ff2-train read`: how fast a dataset is read here, as training reads it.

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::data::{Dataset, Loader, Manifest, Order, Place, Store};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder that `ff2-train tokenize` wrote, or ff2://VOLUME/PATH
    #[arg(long)]
    data: PathBuf,
    /// Configuration of a mount of the cluster, for ff2://
    #[arg(long)]
    mount_config: Option<PathBuf>,
    /// Tokens of a sequence, as `data.sequence` of a run
    #[arg(long, default_value_t = 256)]
    sequence: usize,
    /// Sequences that are read at once, as `data.batch` of a run
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Batches to read
    #[arg(long, default_value_t = 1000)]
    batches: u64,
    /// A JSON object instead of a line for people
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { sequence, batch, batches, .. } = *arguments;
    ensure!(sequence >= 2, "--sequence {sequence}, expected at least 2 tokens");
    ensure!(batch >= 1 && batches >= 1, "--batch {batch} --batches {batches}, expected 1 or more");
    let copies = std::env::temp_dir().join(format!("ff2-train-read-{}", std::process::id()));
    let mount_config = arguments.mount_config.clone().unwrap_or_default();
    let store = Store::open(&arguments.data, &mount_config, copies.clone())?;
    let manifest = Manifest::read(store.local())?;
    // What a volume's small files are copied to is not needed any more.
    if copies.exists() {
        std::fs::remove_dir_all(&copies)?;
    }
    let dataset = Dataset::open(&store, &manifest, &manifest.train, sequence, false)?;
    let order = Order::new(dataset.sequences(), 1);
    let place = Place { position: 0, batch, rank: 0, ranks: 1 };
    let mut loader = Loader::start(Arc::new(dataset), order, place);
    let began = Instant::now();
    for _ in 0..batches {
        loader.next()?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let tokens = batches * (batch * sequence) as u64;
    let rate = tokens as f64 / seconds;
    if arguments.json {
        println!("{}", json!({ "tokens": tokens, "seconds": seconds, "tokens_per_s": rate }));
    } else {
        println!("{tokens} tokens in {seconds:.3} s: {rate:.0} tokens/s");
    }
    Ok(())
}
