//! `ff2ctl completion SHELL`.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::cli::Cli;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// For example: `ff2ctl completion bash > ~/.local/share/bash-completion/completions/ff2ctl`
    shell: Shell,
}

pub(crate) fn run(args: &Args) {
    generate(args.shell, &mut Cli::command(), "ff2ctl", &mut std::io::stdout());
}
