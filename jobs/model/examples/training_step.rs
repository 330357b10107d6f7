//! Times whole training steps (forward, backward, AdamW) of the benchmark's shape; `tests/parity/training_step.py`
//! does the same with PyTorch. Arguments: threads, steps, `bf16` for products of bf16.

use std::time::Instant;

use ff2_model::{AdamW, Model, ModelConfig, Precision, Tokens, Weights, multiply_in};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().as_deref().unwrap_or("1").parse()?;
    let steps: usize = arguments.next().as_deref().unwrap_or("10").parse()?;
    if arguments.next().as_deref() == Some("bf16") {
        multiply_in(Precision::Bf16);
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let text = include_str!("../../../tests/parity/training_step.json");
    let config = ModelConfig::from_json(serde_json::from_str(text)?)?;
    let mut model = Model::new(config.clone(), Weights::random(&config, 1));
    let mut optimizer = AdamW::new(&config);
    let vocab = u32::try_from(config.vocab)?;
    let tokens =
        Tokens::new((0..4 * 256).map(|i: u32| i * 7919 % vocab).collect(), 256, config.vocab)?;
    let mut times = Vec::new();
    for _ in 0..steps {
        let start = Instant::now();
        let mut grad = Weights::zeros(&config);
        let loss = model.step(&tokens, 0.0, &mut grad)?;
        optimizer.step(model.weights_mut(), &grad, 1e-4);
        times.push((start.elapsed().as_secs_f64() * 1e3, loss.main));
    }
    let loss = times[steps - 1].1;
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (millis, parameters) = (times[steps / 2].0, model.weights().len());
    println!(
        "{parameters} parameters, {threads} threads: median {millis:.1} ms a step, loss {loss:.4}"
    );
    Ok(())
}
