//! What the tests of the command have in common: a small dataset, a small model, and a run.

#![allow(dead_code, reason = "each test uses a part")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

pub(crate) const MODEL: &str = r#"
hidden_size = 32
intermediate_size = 64
moe_intermediate_size = 32
num_hidden_layers = 2
first_k_dense_replace = 1
num_attention_heads = 2
q_lora_rank = 16
kv_lora_rank = 16
qk_nope_head_dim = 16
qk_rope_head_dim = 8
v_head_dim = 16
n_shared_experts = 1
n_routed_experts = 4
num_experts_per_tok = 2
n_group = 1
topk_group = 1
num_nextn_predict_layers = 1
initializer_range = 0.05
"#;

/// In a folder of its own, that goes with it.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
}

impl Bench {
    /// A dataset of the project's licence, and `run.toml` for a model that learns it.
    pub(crate) fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let licence = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../LICENSE");
        bench.ok(bench.tokenize(&[&licence]));
        let (data, out) = (bench.path("data"), bench.path("out"));
        let config = format!(
            "out = {out:?}\nsteps = 40\nthreads = 1\n[data]\nfolder = {data:?}\nsequence = 48\nbatch = 4\n\
             [model]\n{MODEL}\n[optimizer]\nlearning_rate = 0.01\n[schedule]\nwarmup = 10\n\
             [evaluate]\nevery = 20\nsequences = 16\n[checkpoint]\nevery = 10\nfile_bytes = 150000\n"
        );
        fs::write(bench.path("run.toml"), config).unwrap();
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self) -> Command {
        Command::new(env!("CARGO_BIN_EXE_ff2-train"))
    }

    pub(crate) fn tokenize(&self, files: &[&Path]) -> Output {
        let mut command = self.command();
        command.args(["tokenize", "--vocab", "384", "--heldout", "0.1", "--out"]);
        command.arg(self.path("data")).args(files).output().unwrap()
    }

    /// `run --json` with `--set` of each, and more arguments.
    pub(crate) fn run(&self, sets: &[&str], more: &[&str]) -> Output {
        let mut command = self.command();
        command.args(["run", "--json", "--config"]).arg(self.path("run.toml"));
        command.args(sets.iter().flat_map(|set| ["--set", set]));
        command.args(more).output().unwrap()
    }

    pub(crate) fn ok(&self, output: Output) -> String {
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// It must fail, and say this.
    pub(crate) fn refused(&self, output: Output, expected: &str) {
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "expected `{expected}`: {error}");
        assert!(error.contains(expected), "expected `{expected}`: {error}");
    }
}

/// The steps of a `--json` output.
pub(crate) fn steps(output: &str) -> Vec<Value> {
    let lines = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line.get("step").is_some()).collect()
}

/// Everything that must be the same in a run that was interrupted.
pub(crate) fn history(steps: &[Value]) -> Vec<(u64, u64, u64, u64)> {
    let bits = |value: &Value| value.as_f64().unwrap().to_bits();
    let all = steps.iter().map(|step| {
        let (loss, norm) = (bits(&step["loss"]), bits(&step["grad_norm"]));
        (step["step"].as_u64().unwrap(), loss, norm, step["tokens"].as_u64().unwrap())
    });
    all.collect()
}
