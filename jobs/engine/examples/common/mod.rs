//! A model to measure: what lies in a folder, or a random one that is written there first.

#![allow(dead_code, reason = "not every example uses all of it")]

use std::{error::Error, path::Path};

use ff2_engine::{Engine, Event, Request};
use ff2_model::{
    Checkpoint, Model, ModelConfig, Weights,
    checkpoint::{Precision, write},
};

/// Of the shape of `tests/parity/throughput.json` where it has to be made.
pub(crate) fn model(folder: &Path) -> Result<Model, Box<dyn Error>> {
    if !folder.join("config.json").exists() {
        let text = include_str!("../../../../tests/parity/throughput.json");
        let config = ModelConfig::from_json(serde_json::from_str(text)?)?;
        std::fs::create_dir_all(folder)?;
        let model = Model::new(config.clone(), Weights::random(&config, 1));
        write(&model, folder, Precision::F32, 1 << 30)?;
    }
    Ok(Checkpoint::open(folder)?.load()?)
}

/// Has the prompts answered, all at once, with `new` tokens each; how many came.
pub(crate) fn generate(
    engine: &Engine,
    prompts: impl Iterator<Item = Vec<u32>>,
    new: usize,
) -> Result<usize, Box<dyn Error>> {
    let all: Result<Vec<_>, _> = prompts
        .map(|prompt| engine.submit(Request { ignore_eos: true, ..Request::greedy(prompt, new) }))
        .collect();
    let mut generated = 0;
    for mut generation in all? {
        while let Some(event) = generation.next_blocking() {
            generated += usize::from(matches!(event, Event::Token { .. }));
        }
    }
    Ok(generated)
}
