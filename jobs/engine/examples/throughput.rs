//! Times generation alone, in a batch, and prefill; `tests/parity/throughput.py` does the same with Python, and
//! `tests/parity/compare_throughput.py` has both take turns.
//! Arguments: FOLDER (a model; without a config.json there, a random one is written to it first), threads, rounds.

mod common;

use std::{path::Path, sync::Arc, time::Instant};

use ff2_engine::{Engine, EngineOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("expected a folder for the model, then threads, rounds")?;
    let threads = arguments.next().as_deref().unwrap_or("1").parse()?;
    let rounds: u32 = arguments.next().as_deref().unwrap_or("3").parse()?;
    let model = Arc::new(common::model(Path::new(&folder))?);
    println!("ff2-engine, {threads} threads, {} parameters", model.weights().len());
    let options = EngineOptions {
        threads,
        prefill_chunk: 512,
        kv_bytes: 256 << 20,
        ..EngineOptions::default()
    };
    let engine = Engine::start(Arc::clone(&model), options)?;
    let vocab = u32::try_from(model.config().vocab)?;
    let mut round = 0;
    for (name, count, len, new) in
        [("single stream", 1, 32, 64), ("batch of 16", 16, 32, 64), ("prefill of 1024", 1, 1024, 1)]
    {
        let mut best: f64 = 0.0;
        for _ in 0..rounds {
            // Another first token each time, so that nothing comes from the prefix cache.
            round += 1;
            let prompt = |s: u32| -> Vec<u32> {
                (0..len)
                    .map(|i| if i == 0 { round } else { (i + 1) * (s + 7) * 7919 % vocab })
                    .collect()
            };
            let start = Instant::now();
            let generated = common::generate(&engine, (0..count).map(prompt), new)?;
            let tokens = if new == 1 { (count * len) as usize } else { generated };
            best = best.max(tokens as f64 / start.elapsed().as_secs_f64());
        }
        println!("{name}: {best:.1} tokens/s");
    }
    Ok(())
}
