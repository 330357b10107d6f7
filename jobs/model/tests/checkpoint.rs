#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! What is written is read again, and what is wrong is refused with the names of file and tensor.

use std::{fs, path::Path, path::PathBuf};

use ff2_model::{
    Checkpoint, Model, Parameters, Weights,
    checkpoint::{Precision, write},
};
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};

fn reference() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity/reference/v3")
}

fn load(folder: &Path) -> Result<Model, String> {
    Checkpoint::open(folder).and_then(Checkpoint::load).map_err(|e| e.to_string())
}

fn bits(weights: &Weights) -> Vec<(String, Vec<u32>)> {
    let mut all = Vec::new();
    weights.visit("", &mut |name, tensor| {
        all.push((name, tensor.data().iter().map(|x| x.to_bits()).collect()));
    });
    all
}

#[test]
fn both_precisions_in_shards_or_not_come_back_bit_by_bit() {
    let model = load(&reference()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // Into one folder: what an earlier write left must not be read.
    for (precision, shard) in [
        (Precision::Bf16, 20_000),
        (Precision::F32, 1 << 30),
        (Precision::F32, 50_000),
        (Precision::Bf16, 1 << 30),
    ] {
        write(&model, folder.path(), precision, shard).unwrap();
        let index = folder.path().join("model.safetensors.index.json");
        assert_eq!(index.exists(), shard < 1 << 30);
        let again = load(folder.path()).unwrap();
        assert_eq!(again.config(), model.config());
        assert_eq!(bits(again.weights()), bits(model.weights()));
    }
}

/// The model's one file with one tensor changed or left out, and what loading it says.
fn changed(
    tensor: &str,
    change: impl Fn(TensorView<'_>) -> Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
) -> String {
    let folder = tempfile::tempdir().unwrap();
    write(&load(&reference()).unwrap(), folder.path(), Precision::F32, 1 << 30).unwrap();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut all = Vec::new();
    for (name, view) in file.iter() {
        if name == tensor {
            all.extend(change(view));
        } else {
            all.push((name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec()));
        }
    }
    let views = all.iter().map(|(n, d, s, b)| (n, TensorView::new(*d, s.clone(), b).unwrap()));
    fs::write(&path, serialize(views, None).unwrap()).unwrap();
    load(folder.path()).unwrap_err()
}

#[test]
fn wrong_tensors_are_named() {
    let norm = "model.norm.weight";
    let error = changed(norm, |_| Vec::new());
    assert!(error.contains("no tensor `model.norm.weight`, expected one of shape [32]"), "{error}");
    let error =
        changed(norm, |v| vec![(norm.into(), Dtype::F32, vec![31], v.data()[4..].to_vec())]);
    assert!(error.contains("`model.norm.weight` has shape [31], expected [32]"), "{error}");
    assert!(error.contains("model.safetensors"), "{error}");
    let error = changed(norm, |v| vec![(norm.into(), Dtype::I32, vec![32], v.data().to_vec())]);
    assert!(error.contains("`model.norm.weight` is I32, expected f32"), "{error}");
    let error = changed(norm, |v| {
        vec![("model.norm.wait".into(), Dtype::F32, vec![32], v.data().to_vec())]
    });
    assert!(error.contains("`model.norm.wait` is not part of the model"), "{error}");
    let head = "lm_head.weight";
    let error = changed(head, |v| {
        vec![(head.into(), Dtype::F8_E4M3, vec![48, 32], v.data()[..48 * 32].to_vec())]
    });
    assert!(error.contains("no quantization_config for fp8"), "{error}");
}

#[test]
fn damaged_files_are_refused_at_any_length() {
    let folder = tempfile::tempdir().unwrap();
    write(&load(&reference()).unwrap(), folder.path(), Precision::Bf16, 1 << 30).unwrap();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for len in [0, 1, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..len]).unwrap();
        let error = load(folder.path()).unwrap_err();
        assert!(error.contains("model.safetensors: no whole safetensors file"), "{len}: {error}");
    }
    let mut corrupt = bytes;
    corrupt[0] ^= 0xff;
    fs::write(&path, corrupt).unwrap();
    load(folder.path()).unwrap_err();
    fs::remove_file(&path).unwrap();
    assert!(load(folder.path()).unwrap_err().contains("model.safetensors"));
}

#[test]
fn an_index_reaches_no_other_folder() {
    let folder = tempfile::tempdir().unwrap();
    write(&load(&reference()).unwrap(), folder.path(), Precision::Bf16, 20_000).unwrap();
    let index = r#"{"weight_map": {"lm_head.weight": "../model.safetensors"}}"#;
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let error = load(folder.path()).unwrap_err();
    assert!(
        error.contains("weight_map.lm_head.weight: expected the name of a file beside"),
        "{error}"
    );
}

#[test]
fn fp8_weights_are_multiplied_with_the_scale_of_their_block() {
    let folder = tempfile::tempdir().unwrap();
    let model = load(&reference()).unwrap();
    write(&model, folder.path(), Precision::F32, 1 << 30).unwrap();
    let config_path = folder.path().join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(&config_path).unwrap()).unwrap();
    config["quantization_config"] =
        serde_json::json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [32, 16]});
    fs::write(&config_path, config.to_string()).unwrap();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ones = vec![0x38u8; 48 * 32];
    let scales: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let others = file.iter().filter(|(name, _)| *name != "lm_head.weight");
    let fp8 = [
        ("lm_head.weight", TensorView::new(Dtype::F8_E4M3, vec![48, 32], &ones).unwrap()),
        ("lm_head.weight_scale_inv", TensorView::new(Dtype::F32, vec![2, 2], &scales).unwrap()),
    ];
    fs::write(&path, serialize(others.chain(fp8), None).unwrap()).unwrap();
    let read = load(folder.path()).unwrap();
    read.weights().visit("", &mut |name, tensor| {
        if name == "lm_head.weight" {
            let d = tensor.data();
            assert_eq!((d[0], d[16], d[32 * 32], d[48 * 32 - 1]), (1.0, 2.0, 3.0, 4.0));
        }
    });
}
