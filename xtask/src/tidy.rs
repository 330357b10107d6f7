//! What a reader must be able to rely on, and no compiler checks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use walkdir::WalkDir;

/// Above this a file is split by operation.
const LINES_MAX: usize = 800;
const COLUMNS_MAX: usize = 120;

pub(crate) fn run(root: &Path) -> Result<()> {
    eprintln!("== tidy");
    let mut problems = Vec::new();
    for (path, source) in sources(root, "rs")? {
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        rust_file(&shown, &source, &mut problems);
    }
    for (path, text) in sources(root, "md")? {
        links(root, &path, &text, &mut problems)?;
    }
    crates_have_purpose(root, &mut problems)?;
    crate::promises::run(root, &mut problems)?;
    ensure!(problems.is_empty(), "{} things to mend:\n{}", problems.len(), problems.join("\n"));
    Ok(())
}

/// All files below `folder` with this extension, build outputs and hidden folders left out.
pub(crate) fn sources(folder: &Path, extension: &str) -> Result<Vec<(PathBuf, String)>> {
    let walk = WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(|entry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || !(name == "target" || name.starts_with('.'))
    });
    let mut found = Vec::new();
    for entry in walk {
        let entry = entry.context("walk the checkout")?;
        if entry.path().extension().is_some_and(|e| e == extension) {
            let text = fs::read_to_string(entry.path())
                .with_context(|| format!("read {}", entry.path().display()))?;
            found.push((entry.into_path(), text));
        }
    }
    Ok(found)
}

fn rust_file(path: &str, source: &str, problems: &mut Vec<String>) {
    let lines = source.lines().count();
    if lines > LINES_MAX {
        problems.push(format!("{path}: {lines} lines, split it by operation (limit {LINES_MAX})"));
    }
    let is_crate_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    let is_test = path.contains("/tests/") || path.ends_with("tests.rs");
    if !is_test && !source.starts_with("//!") {
        problems.push(format!("{path}: no `//!` at the top that says what it owns"));
    }
    if is_crate_root && source.lines().take_while(|l| l.starts_with("//!")).count() < 1 {
        problems.push(format!("{path}: a crate opens with what it owns and who calls it"));
    }
    for (number, line) in source.lines().enumerate() {
        if line.chars().count() > COLUMNS_MAX {
            problems.push(format!("{path}:{}: longer than {COLUMNS_MAX} columns", number + 1));
        }
        if path.starts_with("xtask/") {
            continue;
        }
        for word in ["FIXME", "XXX", "todo!(", "unimplemented!(", "#[ignore", "#[allow(clippy::all"]
        {
            if line.contains(word) {
                problems.push(format!("{path}:{}: `{word}` does not land", number + 1));
            }
        }
    }
}

/// Relative links of a page must lead somewhere.
fn links(root: &Path, page: &Path, text: &str, problems: &mut Vec<String>) -> Result<()> {
    let folder = page.parent().context("a page lies in a folder")?;
    for piece in text.split("](").skip(1) {
        let target = piece.split([')', '#', ' ']).next().unwrap_or_default();
        if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        if !folder.join(target).exists() {
            let shown = page.strip_prefix(root).unwrap_or(page).display();
            problems.push(format!("{shown}: the link to {target} leads nowhere"));
        }
    }
    Ok(())
}

fn crates_have_purpose(root: &Path, problems: &mut Vec<String>) -> Result<()> {
    for (path, manifest) in sources(root, "toml")? {
        if !path.ends_with("Cargo.toml") || !manifest.contains("[package]") {
            continue;
        }
        let shown = path.strip_prefix(root).unwrap_or(&path).display();
        if !manifest.contains("description = \"") {
            problems.push(format!("{shown}: no description"));
        }
        if !manifest.contains("[lints]\nworkspace = true") {
            problems.push(format!("{shown}: does not inherit the workspace's lints"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_tidy() {
        run(&crate::workspace::root().unwrap()).unwrap();
    }

    #[test]
    fn faults_are_seen() {
        let mut problems = Vec::new();
        rust_file("a/src/lib.rs", "fn f() { todo!() }", &mut problems);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
