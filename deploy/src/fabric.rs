//! `ff2ctl fabric`: networks of switches, without a cluster; and what goes over the ports of one.

mod top;

use anyhow::Result;
use ff2_fabric_commands::FabricCommand;

use crate::cli::Surroundings;

/// Plans, checks, routes and simulates networks, and watches that of the cluster.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Plan(Box<FabricCommand>),
    /// What goes over the network ports of compute nodes: the busiest and the broken first.
    Top(top::Args),
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    match command {
        Command::Plan(command) => {
            let answer = command.run()?;
            around.output.print(&answer.value, || answer.text)
        }
        Command::Top(args) => top::run(around, args).await,
    }
}
