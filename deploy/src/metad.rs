//! `ff2ctl metad list|add|remove`: the replicas of the groups.

use std::time::{Duration, Instant};

use anyhow::Result;
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{cli::Surroundings, output::table, show};

const POLL: Duration = Duration::from_millis(300);

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The replicas of each group, and how far they are.
    List,
    /// Wait until a new metad is a voter of all groups.
    ///
    /// It joins by itself when it is started with an empty data folder and a node number of its own;
    /// this tells what is missing.
    Add {
        node: u32,
        /// Seconds to wait.
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        wait: u64,
    },
    /// Take a metad out of all groups for good.
    ///
    /// Stop it first. Its number can be given again only with an empty data folder.
    Remove { node: u32 },
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let admin = around.access.connect()?;
    match command {
        Command::List => {
            let groups = admin.status().await?.groups;
            let value = groups.iter().map(show::group).collect();
            around.output.print(&Value::Array(value), || rows(&groups))
        }
        Command::Add { node, wait } => {
            let progress = around.output.progress();
            let (started, wait) = (Instant::now(), Duration::from_secs(*wait));
            // The proto has room for an address, which a metad that joins tells by itself.
            let request = pb::AddMemberRequest { node: *node, address: String::new() };
            while let Err(missing) = admin.add_member(request.clone()).await {
                if started.elapsed() >= wait {
                    return Err(missing);
                }
                progress.now(format!("{missing:#}"));
                tokio::time::sleep(POLL).await;
            }
            progress.finish();
            around.output.print(&json!({ "added": node }), || {
                format!("metad {node} is a voter of all groups")
            })
        }
        Command::Remove { node } => {
            admin.remove_member(pb::RemoveMemberRequest { node: *node }).await?;
            around.output.print(&json!({ "removed": node }), || format!("removed metad {node}"))
        }
    }
}

fn rows(groups: &[pb::GroupStatus]) -> String {
    let rows = groups.iter().flat_map(|group| {
        group.members.iter().map(|member| {
            let role = match (member.node == group.leader_node, member.voter) {
                (true, _) => "leader",
                (false, true) => "follower",
                (false, false) => "joining",
            };
            vec![
                group.group.to_string(),
                member.node.to_string(),
                member.address.clone(),
                role.to_owned(),
                if member.recently_active { "alive" } else { "silent" }.to_owned(),
                member.raft_id.to_string(),
            ]
        })
    });
    table(&["GROUP", "NODE", "ADDRESS", "ROLE", "STATE", "RAFT ID"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_replica_has_its_line() {
        let member = |node, voter| pb::GroupMember { node, voter, ..Default::default() };
        let group = pb::GroupStatus {
            leader_node: 2,
            members: vec![member(1, true), member(2, true), member(3, false)],
            ..Default::default()
        };
        let text = rows(&[group]);
        let role = |line: usize| text.lines().nth(line).unwrap().to_owned();
        assert!(role(1).contains("follower") && role(1).contains("silent"), "{text}");
        assert!(role(2).contains("leader") && role(3).contains("joining"), "{text}");
    }
}
