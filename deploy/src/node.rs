//! `ff2ctl node list|show|drain|undrain|remove`.

use anyhow::{Context, Result};
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{
    bytes::ByteSize,
    cli::Surroundings,
    connect::Admin,
    output::table,
    show::{self, Picture},
};

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// All nodes.
    List,
    /// One node, its disks and the targets on it.
    Show { node: u32 },
    /// Place no new chains on a node. What lies on it stays and is served.
    Drain { node: u32 },
    /// Place new chains on it again.
    Undrain { node: u32 },
    /// Forget a storage node that is stopped for good.
    ///
    /// Stop it, and wait until what was on it is made anew on other nodes (`ff2ctl status`); that begins
    /// after the metads' `replace_after_s`.
    Remove {
        node: u32,
        /// Do it although chains have members there, which are then not made anew.
        #[arg(long)]
        shrink: bool,
    },
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let admin = around.access.connect()?;
    match command {
        Command::List => list(around, &Picture::of(admin.status().await?)),
        Command::Show { node } => one(around, &Picture::of(admin.status().await?), *node),
        Command::Drain { node } => drain(around, &admin, *node, true).await,
        Command::Undrain { node } => drain(around, &admin, *node, false).await,
        Command::Remove { node, shrink } => {
            admin.remove_node(pb::RemoveNodeRequest { node: *node, shrink: *shrink }).await?;
            around.output.print(&json!({ "removed": node }), || format!("removed node {node}"))
        }
    }
}

async fn drain(around: &Surroundings, admin: &Admin, node: u32, draining: bool) -> Result<()> {
    admin.set_draining(pb::SetDrainingRequest { node, draining }).await?;
    around.output.print(&json!({ "node": node, "draining": draining }), || match draining {
        true => format!("node {node} gets no new chains; what lies on it stays"),
        false => format!("node {node} gets new chains again"),
    })
}

fn list(around: &Surroundings, picture: &Picture) -> Result<()> {
    let nodes = picture.nodes.values();
    let value = nodes.clone().map(|node| show::node(node, picture.loads.get(&node.id))).collect();
    around.output.print(&Value::Array(value), || {
        let rows = nodes.map(|node| {
            let age = picture
                .loads
                .get(&node.id)
                .map_or_else(|| "-".to_owned(), |load| format!("{} ms", load.heartbeat_age_ms));
            vec![
                node.id.to_string(),
                show::role(node.role()).to_owned(),
                show::life(node).to_owned(),
                node.address.clone(),
                node.hostname.clone(),
                node.disks.len().to_string(),
                picture.targets_of(node.id).count().to_string(),
                age,
            ]
        });
        table(
            &["NODE", "ROLE", "STATE", "ADDRESS", "HOST", "DISKS", "TARGETS", "LAST HEARTBEAT"],
            rows,
        )
    })
}

fn one(around: &Surroundings, picture: &Picture, id: u32) -> Result<()> {
    let node = picture
        .nodes
        .get(&id)
        .with_context(|| format!("there is no node {id}; `ff2ctl node list` lists them"))?;
    let mut value = show::node(node, picture.loads.get(&id));
    value["targets"] = picture.targets_of(id).map(|target| show::target(picture, target)).collect();
    around.output.print(&value, || {
        let mut text = format!(
            "node {id}: {}, {}, {} on {}\n\n",
            show::role(node.role()),
            show::life(node),
            node.address,
            node.hostname
        );
        let disks = node.disks.iter().map(|disk| {
            vec![disk.index.to_string(), disk.path.clone(), show::fill(disk), show::hex(&disk.uuid)]
        });
        text += &table(&["DISK", "PATH", "FILL", "UUID"], disks);
        text.push('\n');
        let targets = picture.targets_of(id).map(|target| {
            let disk =
                picture.disk_of(target).map_or_else(|| "-".to_owned(), |d| d.index.to_string());
            vec![
                target.id.to_string(),
                target.chain.to_string(),
                disk,
                show::state(target.public_state()).to_owned(),
                ByteSize(target.used_bytes).to_string(),
            ]
        });
        text + &table(&["TARGET", "CHAIN", "DISK", "STATE", "USED"], targets)
    })
}
