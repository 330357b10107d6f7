//! `ff2ctl volume create|list|show|export`.

mod export;

use anyhow::{Context, Result};
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{bytes::ByteSize, cli::Surroundings, output::table};

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// All volumes.
    List,
    /// One volume, and its space.
    Show { name: String },
    /// Make a volume, an empty tree to mount.
    Create { name: String },
    /// Who may do what with a volume, by the address it comes from.
    ///
    /// Without `--rule` and `--clear` it shows the rules. The first that is for a client's address holds; a client that
    /// none is for may do nothing. Without any rule all may read and write, as whoever their token speaks for.
    Export(export::Args),
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let admin = around.access.connect()?;
    match command {
        Command::List => {
            let volumes = admin.routing().await?.volumes;
            let value = volumes.iter().map(show).collect();
            around.output.print(&Value::Array(value), || rows(&volumes))
        }
        Command::Show { name } => {
            let status = admin.status().await?;
            let volumes = status.routing.unwrap_or_default().volumes;
            let volume = volumes.iter().find(|volume| volume.name == *name);
            let volume = volume.with_context(|| {
                format!("there is no volume {name:?}; `ff2ctl volume list` lists them")
            })?;
            // Volumes share the disks; a cluster has one, and refuses a second.
            let space = status.statfs.unwrap_or_default();
            let mut value = show(volume);
            value["sessions"] = status.sessions.into();
            value["bytes_used"] = space.bytes_used.into();
            value["inodes_used"] = space.inodes_used.into();
            value["available_bytes"] = space.available_bytes.into();
            around.output.print(&value, || {
                format!(
                    "{}\n{} in {} files and folders, {} free, {} sessions\n",
                    rows([volume]),
                    ByteSize(space.bytes_used),
                    space.inodes_used,
                    ByteSize(space.available_bytes),
                    status.sessions
                )
            })
        }
        Command::Export(args) => export::run(around, &admin, args).await,
        Command::Create { name } => {
            let request = pb::CreateVolumeRequest { name: name.clone() };
            let id = admin.create_volume(request).await?.volume_id;
            let value = json!({ "id": id, "name": name });
            around.output.print(&value, || format!("made volume {id}, {name:?}"))
        }
    }
}

fn show(volume: &pb::Volume) -> Value {
    json!({ "id": volume.id, "name": volume.name, "group": volume.group })
}

fn rows<'a>(volumes: impl IntoIterator<Item = &'a pb::Volume>) -> String {
    let rows = volumes
        .into_iter()
        .map(|volume| vec![volume.id.to_string(), volume.name.clone(), volume.group.to_string()]);
    table(&["VOLUME", "NAME", "GROUP"], rows)
}
