//! Proves that the core crates are pure: nothing in their dependency tree can reach a runtime, a
//! clock, randomness, a file or a socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Result, bail, ensure};

use crate::{
    imports,
    workspace::{self, list, text},
};

/// The crates that the simulator runs, and the contract under them.
const PURE: [&str; 9] = [
    "ff2-proto",
    "ff2-topology",
    "ff2-routing",
    "ff2-flows",
    "ff2-meta-core",
    "ff2-storage-core",
    "ff2-client-core",
    "ff2-sched-core",
    "ff2-sched-machine",
];

/// All that a pure crate may reach at run time: codecs, checksums, collections and macros.
const HARMLESS: [&str; 42] = [
    "anyhow",
    "bytes",
    "crc-fast",
    "digest",
    "either",
    "equivalent",
    "ff2-client-core",
    "ff2-flows",
    "ff2-meta-core",
    "ff2-proto",
    "ff2-routing",
    "ff2-sched-core",
    "ff2-sched-machine",
    "ff2-storage-core",
    "ff2-topology",
    // Of maps of `serde_json`, which the server has keep their order: the hashes are random, the order is not.
    "foldhash",
    "hashbrown",
    "indexmap",
    "generic-array",
    "crypto-common",
    "block-buffer",
    "itertools",
    "itoa",
    "memchr",
    "proc-macro2",
    "prost",
    "prost-derive",
    "quote",
    "serde",
    "serde_core",
    "serde_derive",
    "serde_json",
    "siphasher",
    "spin",
    "subtle",
    "syn",
    "thiserror",
    "thiserror-impl",
    "typenum",
    "unicode-ident",
    "xxhash-rust",
    "zmij",
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
    let mut all_reached = BTreeSet::new();
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
        all_reached.extend(reached.iter().map(|id| names[id]));
        ensure!(
            foreign.is_empty(),
            "{pure} must stay pure but reaches {foreign:?}: move that code to the driver crate, or \
             add a crate without I/O, clock and randomness to HARMLESS in xtask/src/purity.rs"
        );
        forbidden_words(root, pure)?;
    }
    // What nobody needs any more would be let in unseen one day.
    let stale: Vec<_> = HARMLESS.iter().filter(|name| !all_reached.contains(*name)).collect();
    ensure!(
        stale.is_empty(),
        "HARMLESS in xtask/src/purity.rs lists what is not reached: {stale:?}"
    );
    Ok(())
}

/// The standard library is always reachable, so its clocks, files and threads are looked for by name.
const FORBIDDEN: [&str; 11] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "std::io",
    "std::os",
    "std::time::Instant",
    "std::time::SystemTime",
    // Their order differs from run to run.
    "std::collections::HashMap",
    "std::collections::HashSet",
];

/// As they stand in code that does not import the whole path.
const WORDS: [&str; 4] = ["Instant::now", "SystemTime", "HashMap", "HashSet"];

fn forbidden_words(root: &Path, name: &str) -> Result<()> {
    let folder = root.join(match name {
        "ff2-proto" => "fabric/proto/src",
        "ff2-topology" => "fabric/topology/src",
        "ff2-routing" => "fabric/routing/src",
        "ff2-flows" => "fabric/flows/src",
        "ff2-meta-core" => "meta/core/src",
        "ff2-storage-core" => "storage/core/src",
        "ff2-client-core" => "client/core/src",
        "ff2-sched-core" => "scheduler/core/src",
        "ff2-sched-machine" => "scheduler/machine/src",
        other => bail!("no source folder known for {other}"),
    });
    for (path, source) in crate::tidy::sources(&folder, "rs")? {
        // Tests may read an environment variable; they are no part of the crate.
        if path.ends_with("tests.rs") || path.components().any(|c| c.as_os_str() == "tests") {
            continue;
        }
        if let Some((line, word)) = impure(&source) {
            bail!("{}:{line}: `{word}` in a pure crate", path.display());
        }
    }
    Ok(())
}

/// The first line that names something impure, and what.
fn impure(source: &str) -> Option<(usize, String)> {
    let named = source.lines().enumerate().find_map(|(place, line)| {
        let code = line.split("//").next().unwrap_or_default();
        let word = FORBIDDEN.iter().chain(&WORDS).find(|word| contains_path(code, word))?;
        Some((place + 1, (*word).to_owned()))
    });
    // Groups spell no path out: `use std::{fs, net::TcpStream}`.
    named.or_else(|| imports::of(source).into_iter().find(|(_, path)| reaches(path)))
}

/// Whether the code has this path, and not merely a longer word: `std::os` is not in `std::ostrich`.
fn contains_path(code: &str, path: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    code.match_indices(path).any(|(at, _)| ends(&code[at + path.len()..]))
}

/// Whether an import brings something forbidden, by its own name or with all that is beside it.
fn reaches(path: &str) -> bool {
    let within = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    FORBIDDEN.iter().any(|forbidden| match path.strip_suffix("::*") {
        Some(all) => within(all, forbidden) || within(forbidden, all),
        // `use std as s` and `use std::time` would give it another name.
        None => within(forbidden, path) || path == "std" || path == "std::time",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_crates_are_pure() {
        run(&workspace::root().unwrap()).unwrap();
    }

    #[test]
    fn every_way_to_name_the_impure_is_seen() {
        for source in [
            "fn f() { std::fs::read(p) }",
            "use std::{fs, net::TcpStream};",
            "use std::{\n    collections::{BTreeMap, HashMap as Map},\n    fmt,\n};",
            "pub(crate) use std::{fmt, time::{Duration, Instant}};",
            "    use std::{env::{self}};",
            "use std::collections::*;",
            "use std::{self as s};",
            "use std::time;",
            "fn f(at: Instant) { Instant::now() }",
        ] {
            assert!(impure(source).is_some(), "{source}");
        }
        for source in [
            "use std::{collections::BTreeMap, fmt, time::Duration};",
            "use crate::{fs, net::TcpStream};",
            "// std::fs is not for us\nuse std::sync::Arc;",
            "use std::ostrich::Feather;",
            "use crate::namespace::std_like::*;",
        ] {
            assert_eq!(impure(source), None, "{source}");
        }
        assert_eq!(impure("\n\nuse std::{fmt,\n  fs};").unwrap(), (3, "std::fs".to_owned()));
    }
}
