//! Which crates have examples in their docs.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::{
    tidy,
    workspace::{list, metadata, text},
};

/// Names of the workspace's libraries with a Rust example in a doc comment.
pub(crate) fn crates(root: &Path) -> Result<Vec<String>> {
    let metadata = metadata(root)?;
    let members = list(&metadata, "workspace_members");
    let mut found = Vec::new();
    for package in list(&metadata, "packages").iter().filter(|p| members.contains(&p["id"])) {
        let folder = Path::new(text(package, "manifest_path")).parent();
        let source = folder.context("a manifest lies in a folder")?.join("src");
        if !source.join("lib.rs").exists() {
            continue;
        }
        if tidy::sources(&source, "rs")?.iter().any(|(_, source)| has_example(source)) {
            found.push(text(package, "name").to_owned());
        }
    }
    ensure!(!found.is_empty(), "no crate has an example: this step would test everything");
    Ok(found)
}

/// A fence in a doc comment opens Rust unless it names another language.
fn has_example(source: &str) -> bool {
    let docs = source.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("//!").or_else(|| line.strip_prefix("///"))
    });
    let fences = docs.filter_map(|line| line.trim_start().strip_prefix("```"));
    // Every second fence closes.
    fences.step_by(2).any(|language| {
        let first = language.split(',').next().unwrap_or_default().trim();
        matches!(first, "" | "rust" | "no_run" | "should_panic" | "compile_fail")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_is_told_from_pictures() {
        assert!(has_example("//! ```no_run\n//! f();\n//! ```"));
        assert!(has_example("/// ```\n/// f();\n/// ```"));
        assert!(!has_example("//! ```text\n//! a -> b\n//! ```"));
        assert!(!has_example("let fence = \"```\";"));
    }

    #[test]
    fn the_client_library_has_one() {
        let crates = crates(&crate::workspace::root().unwrap()).unwrap();
        assert!(crates.contains(&"ff2-client".to_owned()), "{crates:?}");
    }
}
