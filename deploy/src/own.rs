//! Runs `ff2ctl`'s own commands, as the demo and the benchmarks do: what they show is what a person
//! can type.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// `ff2ctl --dir D`.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    program: PathBuf,
    dir: PathBuf,
}

impl Own {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("find ff2ctl's own program file")?;
        Ok(Self { program, dir: dir.to_path_buf() })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Prints the command, runs it, and lets it print.
    pub(crate) fn show(&self, args: &[&str]) -> Result<()> {
        println!("\x1b[2m$ ff2ctl {}\x1b[0m", args.join(" "));
        let status = self.command(args).status().context("start ff2ctl")?;
        ensure!(status.success(), "`ff2ctl {}` failed", args.join(" "));
        Ok(())
    }

    /// What the command prints with `--json`.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let output = self.command(args).arg("--json").stderr(Stdio::inherit()).output();
        let output = output.context("start ff2ctl")?;
        ensure!(output.status.success(), "`ff2ctl {} --json` failed", args.join(" "));
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("parse what `ff2ctl {} --json` printed", args.join(" ")))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--dir").arg(&self.dir).args(args).stdin(Stdio::null());
        command
    }
}
