//! Licences and duplicates of dependencies, and the list of them for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace::{self, list, text};

/// Licences that may be linked into an Apache-2.0 program without further duties than notice.
const ALLOWED: [&str; 13] = [
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "BSL-1.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "CC0-1.0",
    "Unlicense",
    "0BSD",
    "MIT-0",
];

/// Crates that are in the tree in several versions because raft-rs (prost 0.11, rand 0.8, syn 1) or
/// another third party holds an older one. A new name here needs a look at why.
const DUPLICATES: &str = include_str!("duplicates.txt");

pub(crate) fn run(root: &Path) -> Result<()> {
    eprintln!("== dependencies");
    let metadata = workspace::metadata(root)?;
    let packages = list(&metadata, "packages");
    licences(packages)?;
    duplicates(packages)?;
    listed(root, &metadata, packages)
}

/// Crates that state their licence in a file alone, which somebody read.
const READ: [(&str, &str); 1] = [("rdma-sys", "MIT")];

fn licences(packages: &[Value]) -> Result<()> {
    let mut refused = Vec::new();
    for package in packages {
        let read = READ.iter().find(|(name, _)| *name == text(package, "name"));
        let licence = match (text(package, "license"), read) {
            ("", Some((_, licence))) => licence,
            (stated, _) => stated,
        };
        if !permitted(licence) {
            refused.push(format!(
                "{} {}: {licence:?}",
                text(package, "name"),
                text(package, "version")
            ));
        }
    }
    ensure!(refused.is_empty(), "licences not on the list: {refused:#?}");
    Ok(())
}

/// Evaluates an SPDX expression (and the older `A/B`): OR needs one permitted side, AND needs both.
fn permitted(expression: &str) -> bool {
    let flat = expression.replace('/', " OR ").replace(['(', ')'], " ");
    if expression.contains('(') && expression.contains(" AND ") {
        // `(A OR B) AND C`: each factor on its own.
        return expression
            .split(" AND ")
            .all(|factor| permitted(factor.trim_matches(['(', ')', ' '])));
    }
    flat.split(" OR ").any(|choice| {
        choice.split(" AND ").all(|one| {
            let name = one.trim().split(" WITH ").next().unwrap_or_default();
            ALLOWED.contains(&name)
        })
    })
}

fn duplicates(packages: &[Value]) -> Result<()> {
    let known: BTreeSet<&str> = DUPLICATES.split_whitespace().collect();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(text(package, "name")).or_default().push(text(package, "version"));
    }
    let new: Vec<_> = versions
        .iter()
        .filter(|(name, versions)| versions.len() > 1 && !known.contains(**name))
        .collect();
    ensure!(
        new.is_empty(),
        "in the tree in several versions: {new:?}; align them, or add the name to \
         xtask/src/duplicates.txt"
    );
    Ok(())
}

/// Each direct dependency has its line in docs/DEPENDENCIES.md, and no line speaks of one that is gone.
fn listed(root: &Path, metadata: &Value, packages: &[Value]) -> Result<()> {
    let members: BTreeSet<&str> =
        list(metadata, "workspace_members").iter().filter_map(Value::as_str).collect();
    let ours = packages.iter().filter(|package| members.contains(text(package, "id")));
    let direct: BTreeSet<&str> = ours
        .flat_map(|package| list(package, "dependencies"))
        .filter(|dependency| dependency["path"].is_null())
        .map(|dependency| match text(dependency, "rename") {
            "" => text(dependency, "name"),
            renamed => renamed,
        })
        .collect();
    let page = fs::read_to_string(root.join("docs/DEPENDENCIES.md"))
        .context("read docs/DEPENDENCIES.md")?;
    let written: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let missing: Vec<_> = direct.difference(&written).collect();
    let stale: Vec<_> = written.difference(&direct).collect();
    ensure!(missing.is_empty(), "docs/DEPENDENCIES.md lacks a line for {missing:?}");
    ensure!(stale.is_empty(), "docs/DEPENDENCIES.md speaks of {stale:?}, which nothing uses");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::permitted;

    #[test]
    fn licence_expressions() {
        for good in ["MIT", "MIT/Apache-2.0", "GPL-2.0 OR MIT", "(MIT OR GPL-3.0) AND Unicode-3.0"]
        {
            assert!(permitted(good), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND LGPL-2.1"] {
            assert!(!permitted(bad), "{bad}");
        }
        assert!(permitted("Apache-2.0 WITH LLVM-exception"));
    }
}
