#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! Weights in fp8 stay as they are stored, and compute what their numbers in f32 do.

use std::{borrow::Cow, fs, path::Path, path::PathBuf};

use ff2_model::{
    Cache, Checkpoint, Model, Parameters, Precision, Stored, Tokens, checkpoint::write, multiply_in,
};
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};

/// Divides neither the rows nor the columns of all weights.
const BLOCK: [usize; 2] = [20, 12];

fn is_linear(name: &str) -> bool {
    name.contains("_proj") && name.ends_with(".weight") || name == "lm_head.weight"
}

/// A tensor's name, type, shape and bytes.
type Entry<'a> = (String, Dtype, Vec<usize>, Cow<'a, [u8]>);

/// The reference's shape, its linear maps in fp8: any numbers of both signs, small ones too, another scale each block.
fn make(folder: &Path) {
    let reference =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity/reference/v3");
    let model = Checkpoint::open(&reference).unwrap().load().unwrap();
    write(&model, folder, Precision::F32, 1 << 30).unwrap();
    let config_path = folder.join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(&config_path).unwrap()).unwrap();
    config["quantization_config"] =
        serde_json::json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": BLOCK});
    fs::write(&config_path, config.to_string()).unwrap();
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let mut stored: Vec<Entry<'_>> = Vec::new();
    for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
        let shape = view.shape().to_vec();
        if !is_linear(name) {
            stored.push((name.to_owned(), view.dtype(), shape, view.data().into()));
            continue;
        }
        let blocks = [shape[0].div_ceil(BLOCK[0]), shape[1].div_ceil(BLOCK[1])];
        let scales = (0..blocks[0] * blocks[1]).map(|at| 0.001 / (1.0 + at as f32));
        let scales: Vec<u8> = scales.flat_map(f32::to_le_bytes).collect();
        // Up to 352, never 0x7f or 0xff, which are no numbers.
        let numbers = (0..shape[0] * shape[1]).map(|at| (at * 37 % 124 + at * 7 % 2 * 128) as u8);
        let numbers: Vec<u8> = numbers.collect();
        let scale = format!("{name}_scale_inv");
        stored.push((scale, Dtype::F32, blocks.to_vec(), scales.into()));
        stored.push((name.to_owned(), Dtype::F8_E4M3, shape, numbers.into()));
    }
    let views = stored.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(&path, serialize(views, None).unwrap()).unwrap();
}

/// Names of the weights that are in fp8.
fn small(model: &Model) -> Vec<String> {
    let mut found = Vec::new();
    model.weights().visit("", &mut |name, tensor| {
        if matches!(tensor.stored(), Stored::Fp8(..)) {
            found.push(name);
        }
    });
    found
}

/// Logits of all tokens at once, and of the last with the others cached.
fn compute(model: &Model, tokens: &Tokens) -> [Vec<f32>; 2] {
    let at_once = model.logits(&model.forward(tokens));
    let mut cache = Cache::new(model.config(), 1);
    let last = tokens.tokens() - 1;
    model.decode(&tokens.range(0, last), &mut cache).unwrap();
    let cached = model.decode(&tokens.range(last, last + 1), &mut cache).unwrap();
    [at_once, cached].map(|logits| logits.data().to_vec())
}

/// The largest difference, relative to the largest number.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert!(largest > 0.0 && largest.is_finite(), "{largest}");
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |most, d| if d.is_nan() { f32::INFINITY } else { d.max(most) }) / largest
}

#[test]
fn weights_stay_as_they_are_stored_and_compute_what_their_numbers_do() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let model = Checkpoint::open(folder.path()).unwrap().load().unwrap();
    let mut names = Vec::new();
    model.weights().visit("", &mut |name, _| names.extend(Some(name).filter(|it| is_linear(it))));
    assert!(names.len() > 10);
    assert_eq!(small(&model), names);
    let mut plain = Checkpoint::open(folder.path()).unwrap().load().unwrap();
    plain.weights_mut().visit_mut("", &mut |_, tensor| {
        tensor.data_mut();
    });
    assert!(small(&plain).is_empty());

    let vocab = u32::try_from(model.config().vocab).unwrap();
    // As many tokens as products of few rows take, and more.
    for count in [3, 50] {
        let ids = (0..count).map(|at| (at * 13 + 5) % vocab).collect();
        let tokens = Tokens::new(ids, count as usize, model.config().vocab).unwrap();
        for precision in [Precision::F32, Precision::Bf16] {
            multiply_in(precision);
            let (found, expected) = (compute(&model, &tokens), compute(&plain, &tokens));
            multiply_in(Precision::F32);
            for (found, expected) in found.iter().zip(&expected) {
                let difference = difference(found, expected);
                assert!(difference < 1e-6, "{count} tokens, {precision:?}: {difference}");
            }
        }
    }
    // Reading slices gave up nothing.
    assert_eq!(small(&model), names);
    assert!(model.weights().len() == plain.weights().len());
}
