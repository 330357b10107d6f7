//! `ff2ctl target list|show|replace`.

use anyhow::{Context, Result};
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{
    bytes::ByteSize,
    cli::Surroundings,
    output::table,
    show::{self, Picture},
};

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// All targets.
    List,
    /// One target, and how far it is.
    Show { target: u64 },
    /// Make a target anew on another disk, where its chain's other replicas are copied to.
    ///
    /// For a disk that is lost: put a new one in, format it, restart its ff2-storaged, then replace each
    /// target that was on the old one. The chain must still have a serving replica.
    Replace {
        target: u64,
        /// Node of the new disk [default: the node where the target was]
        #[arg(long)]
        node: Option<u32>,
        /// The new disk: its index on the node, or its uuid (`ff2ctl node show` lists both).
        #[arg(long)]
        disk: String,
    },
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let admin = around.access.connect()?;
    match command {
        Command::List => {
            let picture = Picture::of(admin.status().await?);
            let all = picture.targets.values();
            let value = all.clone().map(|target| show::target(&picture, target)).collect();
            around.output.print(&Value::Array(value), || rows(&picture, all))
        }
        Command::Show { target } => one(around, &Picture::of(admin.status().await?), *target),
        Command::Replace { target, node, disk } => {
            let (target, node) = (*target, node.unwrap_or(0));
            let request = pb::ReplaceTargetRequest { target, node, disk: disk.clone() };
            let made = admin.replace_target(request).await?.target;
            around.output.print(&json!({ "replaced": target, "target": made }), || {
                format!("target {made} replaces {target}; `ff2ctl why {made}` tells how far it is")
            })
        }
    }
}

fn one(around: &Surroundings, picture: &Picture, id: u64) -> Result<()> {
    let target = picture
        .targets
        .get(&id)
        .with_context(|| format!("there is no target {id}; `ff2ctl target list` lists them"))?;
    around.output.print(&show::target(picture, target), || {
        let mut text = rows(picture, [target]);
        if let Some(chain) = picture.chains.get(&target.chain) {
            text += &format!("\nchain {}: {}\n", chain.id, show::members(chain));
        }
        text + &format!("`ff2ctl why {id}` tells what it waits for\n")
    })
}

fn rows<'a>(picture: &Picture, targets: impl IntoIterator<Item = &'a pb::Target>) -> String {
    let rows = targets.into_iter().map(|target| {
        let sync = picture.syncs.get(&target.id).map_or_else(
            || "-".to_owned(),
            |sync| format!("{} of {} chunks", sync.done_chunks, sync.total_chunks),
        );
        vec![
            target.id.to_string(),
            target.chain.to_string(),
            target.node.to_string(),
            picture.disk_of(target).map_or_else(|| "-".to_owned(), |disk| disk.path.clone()),
            show::state(target.public_state()).to_owned(),
            ByteSize(target.used_bytes).to_string(),
            sync,
        ]
    });
    table(&["TARGET", "CHAIN", "NODE", "DISK", "STATE", "USED", "SYNC"], rows)
}
