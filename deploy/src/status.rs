//! `ff2ctl status`: what is wrong first, then the cluster at a glance.

mod scheduler;

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use ff2_proto::{pb, routing::ChainExt};
use serde_json::{Value, json};

use crate::{
    bytes::ByteSize,
    cli::Surroundings,
    moves,
    output::table,
    show::{self, Picture},
    up,
};

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail (exit status 1) unless the cluster, and the scheduler if there is one, are healthy.
    #[arg(long)]
    check: bool,
    /// First wait until all that is there takes part: after a server was started again.
    #[arg(long)]
    wait: bool,
}

pub(crate) async fn run(around: &Surroundings, args: Args) -> Result<()> {
    if args.wait {
        let progress = around.output.progress();
        up::wait_whole(around, &progress).await?;
        progress.finish();
    }
    let status = around.access.connect()?.status().await?;
    let scheduler = scheduler::ask(around).await;
    let healthy = status.healthy;
    let mut value = value(&status);
    value["scheduler"] = scheduler.as_ref().map_or(Value::Null, scheduler::Scheduler::value);
    let jobs = scheduler.as_ref().map_or_else(String::new, scheduler::Scheduler::text);
    around.output.print(&value, || people(status, &jobs))?;
    ensure!(healthy || !args.check, "the cluster is not healthy");
    let runs_jobs = scheduler.is_none_or(|scheduler| scheduler.problems().is_empty());
    ensure!(runs_jobs || !args.check, "the scheduler or a compute node is not healthy");
    Ok(())
}

fn value(status: &pb::ClusterStatusReply) -> Value {
    let picture = Picture::of(status.clone());
    let nodes = picture.nodes.values().map(|node| show::node(node, picture.loads.get(&node.id)));
    let targets = picture.targets.values().map(|target| show::target(&picture, target));
    let volumes = status
        .routing
        .iter()
        .flat_map(|routing| &routing.volumes)
        .map(|volume| json!({ "id": volume.id, "name": volume.name, "group": volume.group }));
    json!({
        "cluster_id": status.cluster_id,
        "healthy": status.healthy,
        "problems": status.problems,
        "level": status.routing.as_ref().map_or(0, |routing| routing.level),
        "level_known": status.level_known,
        "upgrade": status.upgrade,
        "routing_version": status.routing.as_ref().map_or(0, |routing| routing.version),
        "groups": status.groups.iter().map(show::group).collect::<Vec<_>>(),
        "nodes": nodes.collect::<Vec<_>>(),
        "targets": targets.collect::<Vec<_>>(),
        "chains": picture.chains.values().map(show::chain).collect::<Vec<_>>(),
        "tables": picture.tables.values().map(show::chain_table).collect::<Vec<_>>(),
        "volumes": volumes.collect::<Vec<_>>(),
        "moves": moves::value(&picture),
        "stuck": moves::stuck(&picture.stuck),
        "rebalancing": picture.rebalancing,
        "sessions": status.sessions,
        "space": status.statfs.as_ref().map(|space| json!({
            "capacity_bytes": space.capacity_bytes, "available_bytes": space.available_bytes,
            "inodes_used": space.inodes_used, "bytes_used": space.bytes_used,
        })),
    })
}

fn people(status: pb::ClusterStatusReply, scheduler: &str) -> String {
    let mut text = match status.healthy {
        true => format!("cluster {}: healthy\n", status.cluster_id),
        false => format!("cluster {}: NOT healthy\n", status.cluster_id),
    };
    for problem in &status.problems {
        let _ = writeln!(text, "  - {problem}");
    }
    if !status.upgrade.is_empty() {
        let _ = writeln!(text, "{}", status.upgrade);
    }
    if let Some(space) = &status.statfs {
        let _ = writeln!(
            text,
            "space: {} free of {}, {} files and folders, {} mounts",
            ByteSize(space.available_bytes),
            ByteSize(space.capacity_bytes),
            space.inodes_used,
            status.sessions
        );
    }
    text += scheduler;
    text.push('\n');
    text += &groups(&status.groups);
    text.push('\n');
    let picture = Picture::of(status);
    text += &nodes(&picture);
    text.push('\n');
    text += &chains(&picture);
    let moves = moves::text(&picture);
    if !moves.is_empty() {
        text += "\nmoves:\n";
        text += &moves;
    }
    text
}

fn groups(groups: &[pb::GroupStatus]) -> String {
    let rows = groups.iter().map(|group| {
        // Only a group's leader knows about its followers; the metad that answers may be one itself.
        let leads = |member: &pb::GroupMember| member.node == group.leader_node;
        let known = group.members.iter().any(|m| leads(m) && m.recently_active);
        let replica = |member: &pb::GroupMember| {
            if !known {
                return member.node.to_string();
            }
            let behind = group.commit_index.saturating_sub(member.match_index);
            let state = match (member.voter, member.recently_active) {
                (_, false) => " silent".to_owned(),
                (false, true) => format!(" joining, {behind} behind"),
                (true, true) if behind > 0 && member.match_index > 0 => format!(" {behind} behind"),
                (true, true) => String::new(),
            };
            format!("{}{state}", member.node)
        };
        let leader = match group.leader_node {
            0 => "none".to_owned(),
            node => format!("node {node}"),
        };
        let replicas = group.members.iter().map(replica).collect::<Vec<_>>().join(", ");
        let name =
            if group.group == 0 { "0 (cluster)".to_owned() } else { group.group.to_string() };
        vec![name, leader, group.term.to_string(), group.commit_index.to_string(), replicas]
    });
    table(&["GROUP", "LEADER", "TERM", "COMMITTED", "REPLICAS ON NODES"], rows)
}

fn nodes(picture: &Picture) -> String {
    let rows = picture.nodes.values().map(|node| {
        let load = picture.loads.get(&node.id).cloned().unwrap_or_default();
        let rate = |bytes: u64| match bytes {
            0 => "-".to_owned(),
            bytes => format!("{}/s", ByteSize(bytes)),
        };
        let disks = node.disks.iter().map(show::fill).collect::<Vec<_>>().join("; ");
        vec![
            node.id.to_string(),
            show::role(node.role()).to_owned(),
            show::life(node).to_owned(),
            node.address.clone(),
            rate(load.read_bytes_per_s),
            rate(load.write_bytes_per_s),
            if disks.is_empty() { "-".to_owned() } else { disks },
        ]
    });
    table(&["NODE", "ROLE", "STATE", "ADDRESS", "READS", "WRITES", "DISKS"], rows)
}

/// Whole chains are only counted; each of the others has its line.
fn chains(picture: &Picture) -> String {
    let is_whole = |chain: &&pb::Chain| picture.is_whole(chain);
    let whole = picture.chains.values().filter(is_whole).count();
    let mut text = format!("{whole} of {} chains have all replicas\n", picture.chains.len());
    let ill: Vec<_> = picture.chains.values().filter(|chain| !is_whole(chain)).collect();
    if !ill.is_empty() {
        let rows = ill.into_iter().map(|chain| {
            let serves = if chain.serving().next().is_some() { "yes" } else { "NO" };
            vec![chain.id.to_string(), serves.to_owned(), show::members(chain)]
        });
        text += &table(&["CHAIN", "SERVES", "TARGETS, HEAD FIRST"], rows);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_first_and_programs_find_their_fields() {
        let status = show::tests::status();
        let value = value(&status);
        assert_eq!(
            (&value["healthy"], &value["groups"][0]["leader_node"]),
            (&json!(false), &json!(1))
        );
        assert_eq!(value["problems"][0], "node 2 is dead: start it");
        assert_eq!(value["nodes"][1]["state"], "dead");
        let text = people(status.clone(), "");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("cluster c: NOT healthy"));
        assert_eq!(lines.next(), Some("  - node 2 is dead: start it"));
        assert!(text.contains("0 of 1 chains have all replicas"), "{text}");
        let well = pb::ClusterStatusReply { healthy: true, problems: Vec::new(), ..status };
        assert!(people(well, "").starts_with("cluster c: healthy\n"));
    }
}
