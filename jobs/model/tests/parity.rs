#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! The same numbers as Python `transformers`: `tests/parity/make_reference.py` made the files.

use std::{fs, path::PathBuf};

use ff2_model::{Cache, Checkpoint, Model, Parameters, Tokens, Weights, is_trained};
use safetensors::SafeTensors;

const MODELS: [&str; 4] = ["v3", "v3-yarn", "v3-no-q-lora", "v2"];

struct Reference {
    model: Model,
    bytes: Vec<u8>,
}

impl Reference {
    fn open(name: &str) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity/reference");
        let folder = root.join(name);
        let model = Checkpoint::open(&folder).unwrap().load().unwrap();
        Self { model, bytes: fs::read(folder.join("reference.safetensors")).unwrap() }
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let found = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        found.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let found = file.tensor(name).unwrap();
        found
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|b| u32::try_from(i64::from_le_bytes(*b)).unwrap())
            .collect()
    }

    fn tokens(&self) -> Tokens {
        Tokens::new(self.ids("input_ids"), 12, self.model.config().vocab).unwrap()
    }
}

/// The largest difference, relative to the largest number of the reference.
fn difference(ours: &[f32], reference: &[f32]) -> f32 {
    assert_eq!(ours.len(), reference.len());
    let largest = reference.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    let differences = ours.iter().zip(reference).map(|(a, b)| (a - b).abs());
    // A number that is none must not pass as no difference.
    differences.fold(0.0, |m, d| if d.is_nan() { f32::INFINITY } else { d.max(m) }) / largest
}

#[test]
fn states_logits_and_loss_agree() {
    for name in MODELS {
        let reference = Reference::open(name);
        let (model, tokens) = (&reference.model, reference.tokens());
        let forward = model.forward(&tokens);
        let mut compared = 0;
        for (number, hidden) in forward.hidden().enumerate() {
            let d = difference(hidden.data(), &reference.numbers(&format!("hidden.{number}")));
            assert!(d < 1e-5, "{name} hidden.{number}: {d}");
            compared += 1;
        }
        assert_eq!(compared, model.config().layers + 1);
        let d = difference(model.logits(&forward).data(), &reference.numbers("logits"));
        assert!(d < 1e-5, "{name} logits: {d}");
        let mut grad = Weights::zeros(model.config());
        let loss = model.step(&tokens, 0.0, &mut grad).unwrap().main;
        let expected = f64::from(reference.numbers("loss")[0]);
        assert!((loss / expected - 1.0).abs() < 1e-6, "{name}: loss {loss}, expected {expected}");
    }
}

#[test]
fn cached_decode_and_greedy_text_agree() {
    for name in MODELS {
        let reference = Reference::open(name);
        let (model, tokens) = (&reference.model, reference.tokens());
        let vocab = model.config().vocab;
        let expected = reference.numbers("decode_logits");
        // One by one, and several at once behind some.
        for steps in [vec![5, 1, 1, 1, 1, 1, 1, 1], vec![1, 4, 7]] {
            let mut cache = Cache::new(model.config(), tokens.batch());
            for count in steps {
                let from = cache.len();
                let logits = model.decode(&tokens.range(from, from + count), &mut cache).unwrap();
                for (sequence, ours) in logits.data().chunks(count * vocab).enumerate() {
                    let expected = &expected[(sequence * 12 + from) * vocab..][..count * vocab];
                    let d = difference(ours, expected);
                    assert!(d < 1e-5, "{name} token {from} of {sequence}: {d}");
                }
            }
        }
        let texts = model.greedy(&tokens, 8).unwrap();
        assert_eq!(texts.concat(), reference.ids("greedy"), "{name}");
    }
}

/// The formulas of the report, around layers of `transformers`: two modules, the second behind the first.
#[test]
fn multi_token_prediction_agrees() {
    let reference = Reference::open("v3-mtp");
    let mut grad = Weights::zeros(reference.model.config());
    // The weight that the script has.
    let loss = reference.model.step(&reference.tokens(), 0.3, &mut grad).unwrap();
    for (name, found) in [("loss", loss.main), ("mtp_loss", loss.mtp)] {
        let expected = f64::from(reference.numbers(name)[0]);
        assert!((found / expected - 1.0).abs() < 1e-6, "{name} {found}, expected {expected}");
    }
    let mut of_modules = 0;
    grad.visit("", &mut |tensor, ours| {
        if is_trained(&tensor) {
            let d = difference(ours.data(), &reference.numbers(&format!("grad.{tensor}")));
            assert!(d < 1e-4, "{tensor}: {d}");
            of_modules +=
                usize::from(["2", "3"].iter().any(|n| tensor.contains(&format!("layers.{n}."))));
        }
    });
    assert!(of_modules > 40, "{of_modules} tensors of the modules");
}

#[test]
fn gradients_agree() {
    for name in MODELS {
        let reference = Reference::open(name);
        let mut grad = Weights::zeros(reference.model.config());
        reference.model.step(&reference.tokens(), 0.0, &mut grad).unwrap();
        grad.visit("", &mut |tensor, ours| {
            if is_trained(&tensor) {
                let d = difference(ours.data(), &reference.numbers(&format!("grad.{tensor}")));
                assert!(d < 1e-4, "{name} {tensor}: {d}");
            }
        });
    }
}
