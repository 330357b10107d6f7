//! `ff2ctl fabric`: networks of switches, without a cluster.

use anyhow::Result;
pub(crate) use ff2_fabric_commands::FabricCommand as Command;
use ff2_fabric_commands::{PlanArgs, plan};

use crate::output::Output;

pub(crate) fn run(output: Output, command: &Command) -> Result<()> {
    let answer = command.run()?;
    output.print(&answer.value, || answer.text)
}

/// `ff2ctl table plan`.
pub(crate) fn plan_table(output: Output, args: &PlanArgs) -> Result<()> {
    let answer = plan(args)?;
    output.print(&answer.value, || answer.text)
}
