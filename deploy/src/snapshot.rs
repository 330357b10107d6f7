//! `ff2ctl snapshot create|list|remove`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use ff2_proto::pb;
use pb::SnapshotState as State;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{bytes::ByteSize, cli::Surroundings, connect::Admin, output::table};

const POLL: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Keep the volume as it is now.
    ///
    /// All that was acknowledged as durable before (by fsync or close) is in it, on whichever mounts, and nothing
    /// that began after this returned. It is made in a moment, whatever the volume holds; writes wait meanwhile.
    /// Only what changes afterwards costs space.
    Create {
        /// As of a file: up to 255 bytes, without `/`.
        name: String,
        /// [default: default]
        #[arg(long, value_name = "NAME")]
        volume: Option<String>,
    },
    /// All snapshots of a volume, the oldest first.
    List {
        /// [default: default]
        #[arg(long, value_name = "NAME")]
        volume: Option<String>,
    },
    /// Let a snapshot go; what it alone needs becomes space again.
    Remove {
        name: String,
        /// [default: default]
        #[arg(long, value_name = "NAME")]
        volume: Option<String>,
        /// Do not wait until its space is free.
        #[arg(long)]
        no_wait: bool,
    },
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let admin = around.access.connect()?;
    match command {
        Command::Create { name, volume } => create(around, &admin, name, volume).await,
        Command::List { volume } => {
            let snapshots = all(&admin, volume).await?;
            let value = snapshots.iter().map(show).collect();
            around.output.print(&Value::Array(value), || rows(&snapshots))
        }
        Command::Remove { name, volume, no_wait } => {
            let request = pb::RemoveSnapshotRequest {
                volume: volume.clone().unwrap_or_default(),
                name: name.clone().into(),
            };
            let removed = admin.remove_snapshot(request).await?.snapshot.unwrap_or_default();
            while !no_wait && all(&admin, volume).await?.iter().any(|s| s.id == removed.id) {
                tokio::time::sleep(POLL).await;
            }
            let done = if *no_wait { "is being removed" } else { "is removed" };
            let value = json!({ "removed": name, "done": !no_wait });
            around.output.print(&value, || format!("snapshot {name} {done}"))
        }
    }
}

async fn create(
    around: &Surroundings,
    admin: &Admin,
    name: &str,
    volume: &Option<String>,
) -> Result<()> {
    let mut request = pb::CreateSnapshotRequest {
        volume: volume.clone().unwrap_or_default(),
        name: name.to_owned().into(),
        id: 0,
    };
    let snapshot = loop {
        let reply = admin.create_snapshot(request.clone()).await?;
        let snapshot = reply.snapshot.context("the answer names no snapshot")?;
        match snapshot.state() {
            State::Ready => break snapshot,
            State::Making => request.id = snapshot.id,
            State::Removing | State::Trimming | State::Unknown => {
                bail!("snapshot {name} was removed as soon as it was made");
            }
        }
    };
    around.output.print(&show(&snapshot), || {
        let (bytes, inodes) = (ByteSize(snapshot.bytes), snapshot.inodes);
        format!("snapshot {name}: {bytes} in {inodes} inodes, in /.snapshots/{name} of each mount")
    })
}

async fn all(admin: &Admin, volume: &Option<String>) -> Result<Vec<pb::SnapshotRecord>> {
    let volume = volume.clone().unwrap_or_default();
    Ok(admin.list_snapshots(pb::ListSnapshotsRequest { volume }).await?.snapshots)
}

fn state(snapshot: &pb::SnapshotRecord) -> &'static str {
    match snapshot.state() {
        State::Making => "being made",
        State::Ready => "ready",
        State::Removing | State::Trimming => "being removed",
        State::Unknown => "unknown",
    }
}

fn show(snapshot: &pb::SnapshotRecord) -> Value {
    json!({
        "id": snapshot.id,
        "name": String::from_utf8_lossy(&snapshot.name),
        "state": state(snapshot),
        "made_s": snapshot.made_ns / 1_000_000_000,
        "bytes": snapshot.bytes,
        "inodes": snapshot.inodes,
    })
}

fn rows(snapshots: &[pb::SnapshotRecord]) -> String {
    let row = |snapshot: &pb::SnapshotRecord| {
        vec![
            String::from_utf8_lossy(&snapshot.name).into_owned(),
            when(snapshot.made_ns),
            ByteSize(snapshot.bytes).to_string(),
            snapshot.inodes.to_string(),
            state(snapshot).to_owned(),
        ]
    };
    table(&["NAME", "MADE", "BYTES", "INODES", "STATE"], snapshots.iter().map(row))
}

/// To the second: `2026-01-31T12:00:00Z`.
fn when(made_ns: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(made_ns / 1_000_000_000).ok();
    let text = at.filter(|_| made_ns != 0).and_then(|at| at.format(&Rfc3339).ok());
    text.unwrap_or_else(|| "-".to_owned())
}
