//! `ff2ctl node`: what joined the cluster, and the compute nodes that run jobs.

mod compute;

use anyhow::{Context, Result};
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

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// All nodes: metads and storage nodes by number, compute nodes by name.
    List,
    /// One node, its disks and the targets on it.
    Show { node: u32 },
    /// Move all that lies on a storage node to others, and place nothing new on it.
    ///
    /// Each target is copied to another node while it goes on serving, so that no chain ever has fewer
    /// replicas. When all have left (`--wait`, or `ff2ctl status`), stop the node and `ff2ctl node remove` it.
    ///
    /// Of a compute node (its name, or `leaf:NAME` for all at a leaf switch) the jobs are suspended and go on
    /// elsewhere.
    Drain {
        node: Which,
        /// Why; shown of a compute node.
        #[arg(long, default_value = "", value_name = "TEXT")]
        why: String,
        /// Return when nothing lies on it any more; fails if something has no place to go to.
        #[arg(long)]
        wait: bool,
    },
    /// Give a drain up: what has not left yet stays.
    Undrain { node: u32 },
    /// Let a compute node, or all at a leaf switch (`leaf:NAME`), run jobs again.
    Resume { node: Which },
    /// Place no new jobs on a compute node, or at a leaf switch: what runs there goes on.
    Cordon {
        node: Which,
        #[arg(long, default_value = "", value_name = "TEXT")]
        why: String,
    },
    /// Have a compute node look at itself, as soon as nothing runs there: processor, memory, disk, file system, GPUs.
    ///
    /// One that fails is quarantined: it gets no jobs until `ff2ctl node resume`.
    Validate {
        node: String,
        /// Say only that it shall.
        #[arg(long)]
        no_wait: bool,
    },
    /// Give a compute node tags, or take some: jobs name those that they need (`--constraint`).
    Tag {
        node: String,
        #[arg(required_unless_present = "remove")]
        tags: Vec<String>,
        /// Take this one.
        #[arg(long, value_name = "TAG")]
        remove: Vec<String>,
    },
    /// Forget a storage node that is stopped for good.
    ///
    /// `ff2ctl node drain` it first; then stop it. What is on one that died is made anew on other nodes after
    /// the metads' `replace_after_s` (`ff2ctl status`).
    Remove {
        node: u32,
        /// Do it although chains have members there: they have fewer replicas until others are made.
        #[arg(long)]
        shrink: bool,
    },
}

/// A node of the cluster by its number, or what runs jobs by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Joined(u32),
    Compute(String),
    Leaf(String),
}

impl std::str::FromStr for Which {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match (text.parse(), text.strip_prefix("leaf:")) {
            (Ok(number), _) => Self::Joined(number),
            (Err(_), Some(leaf)) => Self::Leaf(leaf.to_owned()),
            (Err(_), None) => Self::Compute(text.to_owned()),
        })
    }
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    match command {
        Command::Drain { node: node @ (Which::Compute(_) | Which::Leaf(_)), why, .. } => {
            return compute::set(around, node, "draining", why).await;
        }
        Command::Cordon { node, why } => return compute::set(around, node, "cordoned", why).await,
        Command::Validate { node, no_wait } => {
            return compute::validate(around, node, *no_wait).await;
        }
        Command::Tag { node, tags, remove } => {
            return compute::tag(around, node, tags, remove).await;
        }
        Command::Resume { node } => return compute::set(around, node, "up", "").await,
        _ => {}
    }
    let admin = around.access.connect()?;
    match command {
        Command::List => {
            let compute = compute::nodes(around).await?;
            list(around, &Picture::of(admin.status().await?), &compute)
        }
        Command::Show { node } => one(around, &Picture::of(admin.status().await?), *node),
        Command::Drain { node: Which::Joined(node), wait, .. } => {
            drain(around, &admin, *node, *wait).await
        }
        Command::Drain { .. }
        | Command::Cordon { .. }
        | Command::Resume { .. }
        | Command::Tag { .. }
        | Command::Validate { .. } => Ok(()),
        Command::Undrain { node } => undrain(around, &admin, *node).await,
        Command::Remove { node, shrink } => {
            admin.remove_node(pb::RemoveNodeRequest { node: *node, shrink: *shrink }).await?;
            around.output.print(&json!({ "removed": node }), || format!("removed node {node}"))
        }
    }
}

async fn drain(around: &Surroundings, admin: &Admin, node: u32, wait: bool) -> Result<()> {
    let request = pb::SetDrainingRequest { node, draining: true };
    let mut targets = admin.set_draining(request).await?.targets;
    if wait {
        let left = |picture: &Picture| {
            let here = picture.targets_of(node);
            let bytes = picture.targets_of(node).map(|target| target.used_bytes).sum();
            Left { targets: here.count(), bytes }
        };
        let is_ours = |stuck: &pb::StuckMove| stuck.node == node;
        moves::follow(around, admin, &format!("node {node}"), left, is_ours).await?;
        targets = 0;
    }
    let value = json!({ "node": node, "draining": true, "targets": targets });
    around.output.print(&value, || match targets {
        0 => format!(
            "nothing lies on node {node}, and nothing new will: stop it, then `ff2ctl node remove {node}`"
        ),
        _ => format!(
            "the {targets} targets of node {node} move to others; `ff2ctl status` tells how far they are"
        ),
    })
}

async fn undrain(around: &Surroundings, admin: &Admin, node: u32) -> Result<()> {
    let request = pb::SetDrainingRequest { node, draining: false };
    let targets = admin.set_draining(request).await?.targets;
    let value = json!({ "node": node, "draining": false, "targets": targets });
    around.output.print(&value, || {
        format!("node {node} keeps the {targets} targets that it has, and gets new ones again")
    })
}

fn list(around: &Surroundings, picture: &Picture, compute: &[pb::ComputeNode]) -> Result<()> {
    let nodes = picture.nodes.values();
    let joined = nodes.clone().map(|node| show::node(node, picture.loads.get(&node.id)));
    let value = joined.chain(compute.iter().map(compute::value)).collect();
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
        let mut text = table(
            &["NODE", "ROLE", "STATE", "ADDRESS", "HOST", "DISKS", "TARGETS", "LAST HEARTBEAT"],
            rows,
        );
        if !compute.is_empty() {
            text += "\n";
            text += &compute::shown(compute);
        }
        text
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
