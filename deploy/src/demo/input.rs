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

impl Tree {
    fn empty(root: PathBuf) -> Self {
        Self { root, files: Vec::new() }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, size)| size).sum()
    }
}

pub(super) struct Input {
    pub(super) large: Tree,
    pub(super) small: Tree,
    /// What a model learns.
    pub(super) book: PathBuf,
}

impl Input {
    pub(super) fn bytes(&self) -> u64 {
        self.large.bytes() + self.small.bytes()
    }
}

/// Keeps the demo short where the toolchain has many targets, or the registry large blobs.
const BYTES_MAX: u64 = 1 << 30;
/// With fewer files than this in the registry, nothing is in the middle of the copy.
const SMALL_FILES_MIN: usize = 100;

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
    let registry = home.join("registry/src");
    let small = if registry.is_dir() { walk(&registry, files_max)? } else { Tree::empty(registry) };
    ensure!(
        small.files.len() >= SMALL_FILES_MIN,
        "the demo copies the sources that cargo has unpacked in {}, and there are only {} files: build \
         ff2 here once (`make build`), or set CARGO_HOME to where cargo keeps its registry{}",
        small.root.display(),
        small.files.len(),
        if files_max < SMALL_FILES_MIN { "; --files-max must be at least 100" } else { "" },
    );
    let book = book(&small.root)?;
    Ok(Input { large, small, book })
}

/// In a test of a crate that ff2 depends on (see `deploy/demo/model.toml`).
fn book(registry: &Path) -> Result<PathBuf> {
    let folders = WalkDir::new(registry).min_depth(2).max_depth(2).sort_by_file_name();
    let books = folders.into_iter().filter_map(|folder| {
        let folder = folder.ok()?;
        let is_it = folder.file_name().to_string_lossy().starts_with("llguidance-");
        is_it.then(|| folder.path().join("tests/data/ulysses.md")).filter(|book| book.is_file())
    });
    books.last().with_context(|| {
        format!(
            "the demo's model learns a book of the crate llguidance, which is not in {}: build ff2 here once (`make \
             build`)",
            registry.display()
        )
    })
}

fn walk(root: &Path, files_max: usize) -> Result<Tree> {
    let mut tree = Tree::empty(root.to_path_buf());
    let mut bytes = 0;
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry.with_context(|| format!("read {}", root.display()))?;
        if !entry.file_type().is_file() {
            continue;
        }
        let size = entry.metadata()?.len();
        bytes += size;
        if tree.files.len() == files_max || bytes > BYTES_MAX {
            break;
        }
        let below = entry.path().strip_prefix(root).context("a walk stays below its root")?;
        tree.files.push((below.to_path_buf(), size));
    }
    Ok(tree)
}
