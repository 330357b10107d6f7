//! Runs `ff2ctl`'s own commands, as the demo and the benchmarks do: what they show is what a person
//! can type.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::stop::Stop;

/// `ff2ctl --dir D`.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    program: PathBuf,
    dir: PathBuf,
    stop: Stop,
}

impl Own {
    /// Commands that run when `stop` is requested are killed.
    pub(crate) fn new(dir: &Path, stop: Stop) -> Result<Self> {
        let program = std::env::current_exe().context("find ff2ctl's own program file")?;
        Ok(Self { program, dir: dir.to_path_buf(), stop })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs the command, and lets it print unless `quiet`.
    pub(crate) fn run(&self, args: &[&str], quiet: bool) -> Result<()> {
        let mut command = self.command();
        command.args(args);
        if quiet {
            command.stdout(Stdio::null());
        }
        let output = self.stop.run(&mut command).with_context(|| shown(args))?;
        ensure!(output.status.success(), "`{}` failed", shown(args));
        Ok(())
    }

    /// What the command prints with `--json`.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let mut command = self.command();
        // Before the rest, which may be the words of a job.
        let output = self.stop.run(command.arg("--json").args(args).stdout(Stdio::piped()));
        let output = output.with_context(|| shown(args))?;
        ensure!(output.status.success(), "`{} --json` failed", shown(args));
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("parse what `{} --json` printed", shown(args)))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--dir").arg(&self.dir).stdin(Stdio::null());
        command
    }
}

fn shown(args: &[&str]) -> String {
    format!("ff2ctl {}", args.join(" "))
}
