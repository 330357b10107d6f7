//! `ff2ctl rebalance`: targets go from full disks to empty ones.

use anyhow::Result;
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{
    bytes::ByteSize,
    cli::Surroundings,
    connect::Admin,
    moves::{self, Left},
    output::table,
    show::{self, Picture},
};

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// Only show what would be moved.
    #[arg(long)]
    dry_run: bool,
    /// Return when it is done.
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// End one that goes on: what does not serve yet in its new place stays where it is.
    #[arg(long, conflicts_with_all = ["dry_run", "wait"])]
    stop: bool,
}

pub(crate) async fn run(around: &Surroundings, args: Args) -> Result<()> {
    let Args { dry_run, wait, stop } = args;
    let admin = around.access.connect()?;
    let plan = admin.rebalance(pb::RebalanceRequest { dry_run, stop }).await?;
    if stop {
        return around
            .output
            .print(&json!({ "stopped": true }), || "the rebalance is over".to_owned());
    }
    let picture = Picture::of(admin.status().await?);
    if !wait {
        return around
            .output
            .print(&value(&picture, &plan, dry_run), || text(&picture, &plan, dry_run));
    }
    if !around.output.is_json() {
        around.output.print(&Value::Null, || text(&picture, &plan, false))?;
    }
    follow(around, &admin).await?;
    let picture = Picture::of(admin.status().await?);
    let done = json!({ "moved": plan.moves.len(), "rebalancing": picture.rebalancing });
    around.output.print(&done, || format!("moved {} targets", plan.moves.len()))
}

async fn follow(around: &Surroundings, admin: &Admin) -> Result<()> {
    let left = |picture: &Picture| {
        let coming = picture.targets.values().filter(|target| target.replaces != 0);
        let bytes = coming.clone().filter_map(|target| picture.targets.get(&target.replaces));
        let bytes = bytes.map(|target| target.used_bytes).sum();
        // It ends by itself, a moment after the last move.
        Left { targets: coming.count().max(usize::from(picture.rebalancing)), bytes }
    };
    moves::follow(around, admin, "rebalance", left, |_| false).await
}

fn place(picture: &Picture, node: u32, uuid: &[u8]) -> String {
    let node_of = picture.nodes.get(&node);
    let disk = node_of.and_then(|node| node.disks.iter().find(|disk| disk.uuid[..] == *uuid));
    match disk {
        Some(disk) => format!("node {node} {}", disk.path),
        None => format!("node {node}"),
    }
}

fn text(picture: &Picture, plan: &pb::RebalanceReply, dry_run: bool) -> String {
    let rows = plan.disks.iter().map(|disk| {
        vec![
            place(picture, disk.node, &disk.disk_uuid),
            ByteSize(disk.capacity_bytes).to_string(),
            disk.targets.to_string(),
            disk.targets_after.to_string(),
        ]
    });
    let mut text = table(&["DISK", "SIZE", "TARGETS", "AFTER"], rows);
    text.push('\n');
    if plan.moves.is_empty() {
        return text + "nothing is to be moved: the disks are as even as the chains allow\n";
    }
    let rows = plan.moves.iter().map(|step| {
        vec![
            step.target.to_string(),
            step.chain.to_string(),
            place(picture, step.from_node, &step.from_disk),
            place(picture, step.to_node, &step.to_disk),
        ]
    });
    text += &table(&["TARGET", "CHAIN", "FROM", "TO"], rows);
    let count = plan.moves.len();
    text += &match dry_run {
        true => format!("\n{count} targets would be moved\n"),
        false => format!("\n{count} targets are moved; `ff2ctl status` tells how far they are\n"),
    };
    text
}

fn value(picture: &Picture, plan: &pb::RebalanceReply, dry_run: bool) -> Value {
    let disks = plan.disks.iter().map(|disk| {
        json!({
            "node": disk.node, "disk_uuid": show::hex(&disk.disk_uuid), "targets": disk.targets,
            "targets_after": disk.targets_after, "capacity_bytes": disk.capacity_bytes,
        })
    });
    let moves = plan.moves.iter().map(|step| {
        json!({
            "target": step.target, "chain": step.chain, "from_node": step.from_node,
            "from_disk": show::hex(&step.from_disk), "to_node": step.to_node,
            "to_disk": show::hex(&step.to_disk),
        })
    });
    json!({
        "dry_run": dry_run, "disks": disks.collect::<Vec<_>>(), "moves": moves.collect::<Vec<_>>(),
        "rebalancing": picture.rebalancing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_shown_as_tables() {
        let picture = Picture::of(show::tests::status());
        let step = pb::PlannedMove {
            target: 11,
            chain: 1,
            from_node: 1,
            from_disk: vec![1; 16].into(),
            to_node: 2,
            to_disk: vec![1; 16].into(),
        };
        let disk = pb::DiskShare {
            node: 1,
            disk_uuid: vec![1; 16].into(),
            targets: 3,
            targets_after: 2,
            capacity_bytes: 8 << 30,
        };
        let plan = pb::RebalanceReply { moves: vec![step], disks: vec![disk] };
        let shown = text(&picture, &plan, true);
        assert!(shown.contains("node 1 /d  8 GiB"), "{shown}");
        assert!(shown.contains("1 targets would be moved"), "{shown}");
        assert_eq!(value(&picture, &plan, true)["moves"][0]["to_node"], 2);
        let none = pb::RebalanceReply::default();
        assert!(text(&picture, &none, true).contains("nothing is to be moved"));
    }
}
