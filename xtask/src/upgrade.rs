//! `cargo xtask upgrade`: builds the programs of another commit, and upgrades a cluster from them to these.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

pub(crate) fn run(root: &Path, from: Option<&str>, programs: Option<PathBuf>) -> Result<()> {
    let old = match (from, programs) {
        (_, Some(programs)) => programs.canonicalize().context("find the old programs")?,
        (Some(rev), None) => build(root, rev)?,
        (None, None) => anyhow::bail!("--from REV or --programs DIR"),
    };
    let own = ["build", "--locked", "--workspace", "--all-targets"];
    done(Command::new("cargo").args(own).current_dir(root), "build these programs")?;
    let upgrade = root.join("target/debug/ff2-upgrade");
    done(Command::new(upgrade).arg(&old).current_dir(root), "upgrade")
}

/// A worktree and a build of a commit, made once. What an earlier one left behind is used again; one at a time is kept.
fn build(root: &Path, rev: &str) -> Result<PathBuf> {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(args).current_dir(root);
        git
    };
    let named = git(&["rev-parse", "--verify", &format!("{rev}^{{commit}}")]).output()?;
    ensure!(named.status.success(), "{rev} names no commit");
    let commit = String::from_utf8(named.stdout)?.trim().to_owned();
    let tree = root.join("target/upgrade");
    let path = tree.to_str().context("the path is text")?;
    if tree.join("Cargo.toml").exists() {
        let mut checkout = git(&["-C", path, "checkout", "--quiet", "--detach", &commit]);
        done(&mut checkout, "check the commit out")?;
    } else {
        done(&mut git(&["worktree", "prune"]), "forget worktrees that are gone")?;
        let add = ["worktree", "add", "--quiet", "--force", "--detach", path, &commit];
        done(&mut git(&add), "make a worktree of the commit")?;
    }
    // Third parties are those of this build, as far as they are the same.
    if !tree.join("target/debug").exists() {
        std::fs::create_dir_all(tree.join("target/debug"))
            .context("make the folder of the build")?;
        let own = root.join("target/debug");
        let parts = ["build", "deps", ".fingerprint"].map(|part| own.join(part));
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto"]).args(parts).arg(tree.join("target/debug"));
        done(&mut copy, "copy what third parties were built to")?;
    }
    println!("builds {commit} in {path}");
    let mut cargo = Command::new("nice");
    cargo.args(["cargo", "build", "--locked", "--workspace", "--all-targets"]);
    // The toolchain, and nothing else of this build.
    cargo.env_remove("CARGO_TARGET_DIR").current_dir(&tree);
    done(&mut cargo, "build the commit")?;
    Ok(tree.join("target/debug"))
}

fn done(command: &mut Command, what: &'static str) -> Result<()> {
    let status = command.status().with_context(|| format!("{what}: start"))?;
    ensure!(status.success(), "{what}: {status}");
    Ok(())
}
