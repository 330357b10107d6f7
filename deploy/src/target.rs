//! `ff2ctl target list|show`.

use anyhow::{Context, Result};
use ff2_proto::pb;
use serde_json::Value;

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
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let picture = Picture::of(around.access.connect()?.status().await?);
    match command {
        Command::List => {
            let all = picture.targets.values();
            let value = all.clone().map(|target| show::target(&picture, target)).collect();
            around.output.print(&Value::Array(value), || rows(&picture, all))
        }
        Command::Show { target: id } => {
            let target = picture.targets.get(id).with_context(|| {
                format!("there is no target {id}; `ff2ctl target list` lists them")
            })?;
            around.output.print(&show::target(&picture, target), || {
                let mut text = rows(&picture, [target]);
                if let Some(chain) = picture.chains.get(&target.chain) {
                    text += &format!("\nchain {}: {}\n", chain.id, show::members(chain));
                }
                text + &format!("`ff2ctl why {id}` tells what it waits for\n")
            })
        }
    }
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
