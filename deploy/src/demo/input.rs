//! The demo's real input: what a machine with Rust has anyway.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use walkdir::WalkDir;

/// A folder and the files below it.
pub(super) struct Tree {
    pub(super) root: PathBuf,
    /// Paths below `root`, with their sizes.
    pub(super) files: Vec<(PathBuf, u64)>,
}

pub(super) struct Input {
    pub(super) large: Tree,
    pub(super) small: Tree,
}

impl Input {
    pub(super) fn files(&self) -> usize {
        self.large.files.len() + self.small.files.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.large_bytes() + self.small.files.iter().map(|(_, size)| size).sum::<u64>()
    }

    pub(super) fn large_bytes(&self) -> u64 {
        self.large.files.iter().map(|(_, size)| size).sum()
    }
}

pub(super) fn find(files_max: usize) -> Result<Input> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context(
        "run `rustc --print sysroot`: the demo copies the Rust toolchain, so rustc must be on the PATH",
    )?;
    ensure!(output.status.success(), "`rustc --print sysroot` failed");
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let large = walk(&sysroot.join("lib"), usize::MAX)?;
    let small = walk(&home.join("registry/src"), files_max)?;
    ensure!(small.files.len() >= 3, "no sources in {}: build ff2 once", small.root.display());
    Ok(Input { large, small })
}

fn walk(root: &Path, files_max: usize) -> Result<Tree> {
    let mut files = Vec::new();
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry.with_context(|| format!("read {}", root.display()))?;
        if entry.file_type().is_file() && files.len() < files_max {
            let below = entry.path().strip_prefix(root).context("a walk stays below its root")?;
            files.push((below.to_path_buf(), entry.metadata()?.len()));
        }
    }
    Ok(Tree { root: root.to_path_buf(), files })
}
