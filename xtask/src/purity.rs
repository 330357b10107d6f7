//! Proves that the core crates are pure: nothing in their dependency tree can reach a runtime, a
//! clock, randomness, a file or a socket.

use std::{collections::BTreeMap, collections::BTreeSet, path::Path};

use anyhow::{Result, bail, ensure};

use crate::workspace::{self, list, text};

/// The crates that the simulator runs, and the contract under them.
const PURE: [&str; 4] = ["ff2-proto", "ff2-meta-core", "ff2-storage-core", "ff2-client-core"];

/// All that a pure crate may reach at run time: codecs, checksums, collections and macros.
const HARMLESS: [&str; 36] = [
    "anyhow",
    "arrayvec",
    "autocfg",
    "bytes",
    "cfg-if",
    "cpufeatures",
    "crc",
    "crc-catalog",
    "crc-fast",
    "digest",
    "either",
    "ff2-client-core",
    "ff2-meta-core",
    "ff2-proto",
    "ff2-storage-core",
    "generic-array",
    "crypto-common",
    "block-buffer",
    "hybrid-array",
    "const-oid",
    "itertools",
    "libc",
    "proc-macro2",
    "prost",
    "prost-derive",
    "quote",
    "sha2",
    "rustversion",
    "spin",
    "subtle",
    "syn",
    "thiserror",
    "thiserror-impl",
    "typenum",
    "unicode-ident",
    "xxhash-rust",
];

pub(crate) fn run(root: &Path) -> Result<()> {
    eprintln!("== purity of the core crates");
    let metadata = workspace::metadata(root)?;
    let names: BTreeMap<&str, &str> =
        list(&metadata, "packages").iter().map(|p| (text(p, "id"), text(p, "name"))).collect();
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in list(&metadata["resolve"], "nodes") {
        // A dependency for tests only (kind "dev") or the build script ("build") never runs in the crate.
        let normal = list(node, "deps").iter().filter(|dependency| {
            list(dependency, "dep_kinds").iter().any(|kind| kind["kind"].is_null())
        });
        edges.insert(text(node, "id"), normal.map(|d| text(d, "pkg")).collect());
    }
    for pure in PURE {
        let Some((start, _)) = names.iter().find(|(_, name)| **name == pure) else {
            bail!("{pure} is listed as pure but is no crate of the workspace");
        };
        let mut reached = BTreeSet::new();
        let mut open = vec![*start];
        while let Some(id) = open.pop() {
            if reached.insert(id) {
                open.extend(edges.get(id).into_iter().flatten());
            }
        }
        let foreign: Vec<&str> =
            reached.iter().map(|id| names[id]).filter(|name| !HARMLESS.contains(name)).collect();
        ensure!(
            foreign.is_empty(),
            "{pure} must stay pure but reaches {foreign:?}: move that code to the driver crate, or \
             add a crate without I/O, clock and randomness to HARMLESS in xtask/src/purity.rs"
        );
        forbidden_words(root, pure)?;
    }
    Ok(())
}

/// The standard library is always reachable, so its clocks, files and threads are looked for by name.
fn forbidden_words(root: &Path, name: &str) -> Result<()> {
    const WORDS: [&str; 10] = [
        "std::fs",
        "std::net",
        "std::thread",
        "std::process",
        "std::env::",
        "Instant::now",
        "SystemTime",
        "HashMap",
        "HashSet",
        "std::io::",
    ];
    let folder = root.join(match name {
        "ff2-proto" => "fabric/proto/src",
        "ff2-meta-core" => "meta/core/src",
        "ff2-storage-core" => "storage/core/src",
        "ff2-client-core" => "client/core/src",
        other => bail!("no source folder known for {other}"),
    });
    for (path, source) in crate::tidy::sources(&folder, "rs")? {
        // Tests may read an environment variable; they are no part of the crate.
        if path.ends_with("tests.rs") || path.components().any(|c| c.as_os_str() == "tests") {
            continue;
        }
        for (number, line) in source.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(word) = WORDS.iter().find(|word| code.contains(**word)) {
                bail!("{}:{}: `{word}` in a pure crate", path.display(), number + 1);
            }
        }
    }
    Ok(())
}
