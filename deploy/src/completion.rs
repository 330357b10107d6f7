//! `ff2ctl completion SHELL`.

use std::io::{self, Write};

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::cli::Cli;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// For example: `ff2ctl completion bash > ~/.local/share/bash-completion/completions/ff2ctl`
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "ff2ctl", &mut script);
    match io::stdout().write_all(&script) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}
