//! Suites that are not ours: finding their programs, running them, how long, and what must hold on the
//! mounts afterwards.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::fs::statvfs;

use crate::may_skip;

/// A small cluster, for what looks at the mount and not at the death of servers.
#[rustfmt::skip]
pub const SMALL: [&str; 10] = [
    "--metad", "1", "--storaged", "1", "--disks", "1", "--replicas", "1", "--disk-size", "4GiB",
];

/// Where a program is that a test runs.
///
/// `None`: it is missing and the test may be left out; see [`may_skip`]. Panics if it may not.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file());
    if found.is_none() {
        let missing = format!("{name} is not installed: deploy/install-packages.sh test");
        assert!(may_skip(&missing), "{missing}; FF2_TEST_ALLOW_SKIP={name} leaves this out");
    }
    found
}

/// How many times as long as `make test` wants them the suites run, each round with another seed:
/// `FF2_TEST_ROUNDS`, 1 if that is not set.
pub fn rounds() -> u64 {
    let Ok(text) = env::var("FF2_TEST_ROUNDS") else { return 1 };
    text.parse().ok().filter(|rounds| *rounds > 0).expect("FF2_TEST_ROUNDS is a number from 1 on")
}

/// Runs to its end and returns what it printed; a failure says all of it.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    ensure!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    Ok(text)
}

/// Fails if two folders do not have equal trees: names, attributes and bytes.
pub fn ensure_same_tree(left: &Path, right: &Path) -> Result<()> {
    let (left, right) = (tree(left)?, tree(right)?);
    for (path, node) in &left {
        let other = right.get(path);
        ensure!(other == Some(node), "{}: {node:?} here, {other:?} there", path.display());
    }
    ensure!(left.len() == right.len(), "{} nodes here, {} there", left.len(), right.len());
    ensure!(!left.is_empty(), "there is nothing to compare");
    Ok(())
}

/// What a node is: mode with kind, owner, links, size, mtime, and bytes of a file or target.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    attributes: [i64; 7],
    bytes: Vec<u8>,
}

fn tree(root: &Path) -> Result<BTreeMap<PathBuf, Node>> {
    let mut nodes = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            let known = fs::symlink_metadata(&path)?;
            let bytes = if known.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else if known.is_symlink() {
                fs::read_link(&path)?.into_os_string().into_encoded_bytes()
            } else if known.is_file() {
                fs::read(&path)?
            } else {
                Vec::new()
            };
            let (mode, links) = (i64::from(known.mode()), known.nlink() as i64);
            let owner = [i64::from(known.uid()), i64::from(known.gid())];
            let (size, seconds, nanos) = (known.size() as i64, known.mtime(), known.mtime_nsec());
            let attributes = [mode, links, owner[0], owner[1], size, seconds, nanos];
            let path = path.strip_prefix(root)?.to_path_buf();
            nodes.insert(path, Node { attributes, bytes });
        }
    }
    Ok(nodes)
}

/// Inodes that the volume has, those without a name with them.
pub fn inodes(mount: &Path) -> Result<u64> {
    let space = statvfs(mount).context("ask for the volume's space")?;
    Ok(space.f_files - space.f_ffree)
}

/// Waits until the volume has no more inodes than `at_most`: what was removed was collected.
pub fn wait_collected(mount: &Path, at_most: u64) -> Result<()> {
    let started = Instant::now();
    loop {
        let now = inodes(mount)?;
        if now <= at_most {
            return Ok(());
        }
        ensure!(started.elapsed() < Duration::from_secs(60), "{now} inodes, {at_most} before");
        std::thread::sleep(Duration::from_millis(200));
    }
}
