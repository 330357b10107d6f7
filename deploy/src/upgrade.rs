//! `ff2ctl upgrade finish`: the end of an upgrade.

use anyhow::{Result, ensure};
use ff2_fabric::level;
use ff2_proto::pb;
use serde_json::json;

use crate::{cli::Surroundings, connect::Admin};

#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Let the cluster use what the new release brought, once all its servers run it.
    ///
    /// Until then the old release can be put back on any server. Afterwards it is refused. Fails, and names the
    /// servers, if some do not run the new release.
    Finish,
}

pub(crate) async fn run(around: &Surroundings, command: Command) -> Result<()> {
    let Command::Finish = command;
    let reply = finish(&around.access.connect()?).await?;
    let value = json!({ "before": reply.before, "level": reply.level });
    around.output.print(&value, || told(&reply))
}

pub(crate) async fn finish(admin: &Admin) -> Result<pb::FinishUpgradeReply> {
    let reply = admin.finish_upgrade(pb::FinishUpgradeRequest {}).await?;
    let known = level::known();
    ensure!(
        reply.level >= known,
        "the cluster stays at level {}, because the metad that leads it does not know level {known}: install the new \
         release on all servers",
        reply.level
    );
    Ok(reply)
}

fn told(reply: &pb::FinishUpgradeReply) -> String {
    match reply.level {
        level if level == reply.before => format!("the cluster is at level {level} already"),
        level => format!("the cluster went from level {} to level {level}", reply.before),
    }
}
