#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! The command as a user calls it: which tensors it writes, in which shapes, and how it refuses.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};

fn model() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity/reference/v3")
}

fn inspect(input: &Path, out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ff2-train"));
    command
        .arg("inspect")
        .arg("--model")
        .arg(model())
        .arg("--input")
        .arg(input)
        .arg("--out")
        .arg(out);
    command.args(more).output().unwrap()
}

#[test]
fn all_tensors_have_the_shapes_of_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) =
        (model().join("reference.safetensors"), folder.path().join("out.safetensors"));
    let ran =
        inspect(&input, &out, &["--prefill", "5", "--generate", "8", "--grad", "--threads", "2"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let (expected, found) = (fs::read(input).unwrap(), fs::read(out).unwrap());
    let (expected, found) =
        (SafeTensors::deserialize(&expected).unwrap(), SafeTensors::deserialize(&found).unwrap());
    assert_eq!(found.len(), expected.len() - 1, "all but the input");
    for (name, tensor) in expected.iter().filter(|(name, _)| *name != "input_ids") {
        let ours = found.tensor(name).unwrap();
        assert_eq!((ours.shape(), ours.dtype()), (tensor.shape(), tensor.dtype()), "{name}");
    }
    assert_eq!(found.tensor("greedy").unwrap().data(), expected.tensor("greedy").unwrap().data());
}

#[test]
fn bad_input_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.safetensors");
    let refused = |ids: &[i64], shape: &[usize], more: &[&str], expected: &str| {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::I64, shape.to_vec(), &bytes).unwrap();
        fs::write(&input, serialize([("input_ids", view)], None).unwrap()).unwrap();
        let ran = inspect(&input, &folder.path().join("out.safetensors"), more);
        let error = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(1), "{error}");
        assert!(error.contains(expected), "{error}");
    };
    refused(&[1, 48], &[1, 2], &[], "token 48, expected less than the vocabulary's 48");
    refused(&[1, -1], &[1, 2], &[], "`input_ids` has -1");
    refused(&[1, 2], &[2], &[], "`input_ids` has shape [2], expected [batch, tokens]");
    refused(&[], &[0, 4], &[], "are no sequences");
    refused(&[1, 2], &[2, 1], &["--grad"], "at least 2 tokens");
    refused(&[1, 2], &[1, 2], &["--prefill", "3"], "--prefill 3, expected 1 to the 2 tokens");
}
