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

/// Writes some of a file's tensors, and returns their names.
fn write_some(all: &SafeTensors<'_>, path: &Path, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let some: Vec<_> = all.iter().filter(|(name, _)| wanted(name)).collect();
    let names = some.iter().map(|(name, _)| (*name).to_owned()).collect();
    fs::write(path, serialize(some, None).unwrap()).unwrap();
    names
}

#[test]
fn scales_are_found_in_whatever_file_they_are() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let expected = Checkpoint::open(folder.path()).unwrap().load().unwrap();
    let single = folder.path().join("model.safetensors");
    let bytes = fs::read(&single).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let mut map = serde_json::Map::new();
    // The weights come first, so their scales are read after them.
    for (file, is_scales) in [("a.safetensors", false), ("b.safetensors", true)] {
        let is_wanted = |name: &str| name.ends_with("_scale_inv") == is_scales;
        for name in write_some(&all, &folder.path().join(file), is_wanted) {
            map.insert(name, file.into());
        }
    }
    let index = serde_json::json!({ "weight_map": map });
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    fs::remove_file(&single).unwrap();
    let found = Checkpoint::open(folder.path()).unwrap().load().unwrap();
    assert!(small(&found).len() > 10);
    let mut tensors = Vec::new();
    expected.weights().visit("", &mut |_, tensor| tensors.push(tensor));
    let mut tensors = tensors.into_iter();
    found.weights().visit("", &mut |name, tensor| {
        let expected = tensors.next().unwrap();
        match (tensor.stored(), expected.stored()) {
            (Stored::Fp8(bytes, scales), Stored::Fp8(as_before, as_told)) => {
                assert!(bytes == as_before && scales == as_told, "{name}");
                assert!(scales.iter().all(|scale| *scale > 0.0), "{name}");
            }
            _ => assert!(tensor == expected, "{name}"),
        }
    });
}

#[test]
fn scales_that_would_need_scales_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let views = all.iter().map(|(name, view)| {
        let (shape, is_scale) = (view.shape().to_vec(), name == "lm_head.weight_scale_inv");
        let dtype = if is_scale { Dtype::F8_E4M3 } else { view.dtype() };
        let len = if is_scale { shape.iter().product() } else { view.data().len() };
        (name, TensorView::new(dtype, shape, &view.data()[..len]).unwrap())
    });
    fs::write(&path, serialize(views, None).unwrap()).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap().load().unwrap_err().to_string();
    assert!(
        error.contains("lm_head.weight_scale_inv") && error.contains("it is a scale"),
        "{error}"
    );
}
