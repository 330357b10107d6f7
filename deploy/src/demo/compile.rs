//! A crate that lives, is built and runs on the mount.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::say::Say;
use crate::stop::Stop;

const MANIFEST: &str = r#"[package]
name = "hello-ff2"
version = "0.1.0"
edition = "2021"

[workspace]
"#;

const MAIN: &str = r#"mod sum;

fn main() {
    println!("hello from ff2: {}", sum::of_squares(1_000));
}
"#;

const SUM: &str = r"pub fn of_squares(n: u64) -> u64 {
    (1..=n).map(|i| i * i).sum()
}
";

/// Builds a small crate in `mount/hello` (sources and build outputs both there) and runs it.
pub(super) fn crate_on(mount: &Path, stop: &Stop, say: Say) -> Result<()> {
    let folder = mount.join("hello");
    fs::create_dir_all(folder.join("src")).context("create the crate's folder")?;
    fs::write(folder.join("Cargo.toml"), MANIFEST).context("write Cargo.toml")?;
    fs::write(folder.join("src/main.rs"), MAIN).context("write main.rs")?;
    fs::write(folder.join("src/sum.rs"), SUM).context("write sum.rs")?;
    say.command(&format!("cd {} && cargo run --offline", folder.display()));
    let mut command = Command::new("cargo");
    command
        // The user's own settings may send build outputs elsewhere.
        .args(["run", "--offline", "--quiet", "--target-dir", "target"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let output = stop.run(&mut command).context("run cargo")?;
    ensure!(output.status.success(), "cargo failed on the mount");
    let printed = String::from_utf8_lossy(&output.stdout);
    say.line(printed.trim_end());
    ensure!(printed.trim() == "hello from ff2: 333833500", "the program printed something else");
    Ok(())
}
