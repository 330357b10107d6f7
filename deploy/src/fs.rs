//! `ff2ctl fs`: files of the volume through the client library, without a mount.

mod source;

use std::path::PathBuf;

use anyhow::{Context, Result};
use ff2_client::Client;
use ff2_proto::{ChainId, Routing, layout::stripe_chains, pb};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::{bytes::ByteSize, cli::Surroundings, output::table};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    source: source::Source,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// List a folder.
    Ls { path: String },
    /// Attributes of a file or folder.
    Stat { path: String },
    /// Which chains and nodes hold a file.
    Layout { path: String },
    /// Sum the sizes below a folder.
    Du { path: String },
    /// Make a folder, and those above it.
    Mkdir { path: String },
    /// Remove a file or an empty folder.
    Rm { path: String },
    /// Copy a local file into the volume.
    Put { local: PathBuf, path: String },
    /// Copy a file of the volume to a local one.
    Get { path: String, local: PathBuf },
}

pub(crate) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let options = args.source.options(&around.access).await?;
    let client = Client::connect(options).await.context("connect to the cluster")?;
    let outcome = perform(around, &args.command, &client).await;
    client.close().await;
    outcome
}

async fn perform(around: &Surroundings, command: &Command, client: &Client) -> Result<()> {
    match command {
        Command::Ls { path } => ls(around, client, path).await,
        Command::Stat { path } => {
            let attr = client.stat(path).await.with_context(|| path.clone())?;
            around.output.print(&show(&attr), || people(&attr))
        }
        Command::Layout { path } => layout(around, client, path).await,
        Command::Du { path } => du(around, client, path).await,
        Command::Mkdir { path } => {
            client.create_dir_all(path).await.with_context(|| path.clone())?;
            around.output.print(&json!({ "made": path }), || format!("made {path}"))
        }
        Command::Rm { path } => {
            rm(client, path).await?;
            around.output.print(&json!({ "removed": path }), || format!("removed {path}"))
        }
        Command::Put { local, path } => {
            let bar = bar(around);
            let copied = client.put(local, path, 0o644, |progress| {
                bar.set_length(progress.total_bytes);
                bar.set_position(progress.done_bytes);
            });
            let bytes = copied.await.with_context(|| path.clone())?;
            bar.finish_and_clear();
            around.output.print(&json!({ "path": path, "bytes": bytes }), || copied_text(bytes))
        }
        Command::Get { path, local } => {
            let bar = bar(around);
            let copied = client.get(path, local, |progress| {
                bar.set_length(progress.total_bytes);
                bar.set_position(progress.done_bytes);
            });
            let bytes = copied.await.with_context(|| path.clone())?;
            bar.finish_and_clear();
            around.output.print(&json!({ "path": path, "bytes": bytes }), || copied_text(bytes))
        }
    }
}

fn copied_text(bytes: u64) -> String {
    format!("copied {}", ByteSize(bytes))
}

fn bar(around: &Surroundings) -> ProgressBar {
    if around.output.is_json() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:36} {bytes} of {total_bytes} {binary_bytes_per_sec}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

async fn ls(around: &Surroundings, client: &Client, path: &str) -> Result<()> {
    let entries = client.read_dir(path).await.with_context(|| path.to_owned())?;
    let rows = entries.iter().map(|entry| {
        let attr = entry.attr.unwrap_or_default();
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        (name, attr)
    });
    let rows: Vec<(String, pb::Attr)> = rows.collect();
    let value = rows.iter().map(|(name, attr)| {
        let mut value = show(attr);
        value["name"] = json!(name);
        value
    });
    around.output.print(&value.collect(), || {
        let lines = rows.iter().map(|(name, attr)| {
            vec![
                mode(attr),
                attr.nlink.to_string(),
                format!("{}:{}", attr.uid, attr.gid),
                ByteSize(attr.size).to_string(),
                name.clone(),
            ]
        });
        table(&["MODE", "LINKS", "OWNER", "SIZE", "NAME"], lines)
    })
}

async fn layout(around: &Surroundings, client: &Client, path: &str) -> Result<()> {
    let layout = client.layout(path).await.with_context(|| path.to_owned())?;
    let layout = layout.with_context(|| format!("{path} holds no data and has no layout"))?;
    let mut routing = Routing::default();
    let asked = around.access.connect()?.routing().await;
    routing.apply(asked.context("ask where the chains lie, which takes a token with root")?);
    let chains = routing.table_chains(&layout).with_context(|| {
        format!("version {} of chain table {} is not known", layout.table_version, layout.table)
    })?;
    let used = stripe_chains(&chains, layout.stripe, layout.seed);
    let nodes = |chain: &ChainId| -> Vec<u32> {
        let members = routing.chains.get(chain).into_iter().flat_map(|chain| &chain.members);
        members.map(|member| member.node).collect()
    };
    let value = json!({
        "path": path,
        "table": layout.table,
        "table_version": layout.table_version,
        "chunk_size": layout.chunk_size,
        "chains": used.iter().map(|c| json!({ "chain": c.0, "nodes": nodes(c) })).collect::<Vec<_>>(),
    });
    around.output.print(&value, || {
        let lines = used.iter().enumerate().map(|(place, chain)| {
            let nodes: Vec<String> = nodes(chain).iter().map(u32::to_string).collect();
            vec![place.to_string(), chain.to_string(), nodes.join(", ")]
        });
        let chunk = ByteSize(u64::from(layout.chunk_size));
        format!(
            "chunks of {chunk}; chunk i lies on the chain at place i modulo {}\n{}",
            used.len(),
            table(&["PLACE", "CHAIN", "NODES, HEAD FIRST"], lines)
        )
    })
}

async fn du(around: &Surroundings, client: &Client, path: &str) -> Result<()> {
    let mut open = vec![path.as_bytes().to_vec()];
    let (mut files, mut folders, mut bytes) = (0_u64, 0_u64, 0_u64);
    while let Some(folder) = open.pop() {
        let shown = String::from_utf8_lossy(&folder).into_owned();
        folders += 1;
        for entry in client.read_dir(&folder).await.with_context(|| shown.clone())? {
            let attr = entry.attr.unwrap_or_default();
            if attr.kind() == pb::FileKind::Directory {
                open.push([&folder[..], b"/", &entry.name].concat());
            } else {
                files += 1;
                bytes += attr.size;
            }
        }
    }
    let value = json!({ "path": path, "files": files, "folders": folders, "bytes": bytes });
    around
        .output
        .print(&value, || format!("{} in {files} files and {folders} folders", ByteSize(bytes)))
}

async fn rm(client: &Client, path: &str) -> Result<()> {
    let attr = client.stat_link(path).await.with_context(|| path.to_owned())?;
    match attr.kind() {
        pb::FileKind::Directory => client.remove_dir(path).await,
        _ => client.remove_file(path).await,
    }
    .with_context(|| path.to_owned())
}

fn mode(attr: &pb::Attr) -> String {
    let kind = match attr.kind() {
        pb::FileKind::Directory => 'd',
        pb::FileKind::Symlink => 'l',
        pb::FileKind::Fifo => 'p',
        pb::FileKind::Socket => 's',
        pb::FileKind::CharDevice => 'c',
        pb::FileKind::BlockDevice => 'b',
        pb::FileKind::Regular | pb::FileKind::KindUnknown => '-',
    };
    format!("{kind}{:04o}", attr.mode)
}

fn show(attr: &pb::Attr) -> serde_json::Value {
    json!({
        "inode": attr.inode,
        "kind": attr.kind().as_str_name(),
        "mode": attr.mode,
        "uid": attr.uid,
        "gid": attr.gid,
        "links": attr.nlink,
        "size": attr.size,
        "mtime_ns": attr.mtime_ns,
        "ctime_ns": attr.ctime_ns,
        "version": attr.version,
    })
}

fn people(attr: &pb::Attr) -> String {
    format!(
        "inode {}, {}, mode {}, {} bytes, {} links, owner {}:{}",
        attr.inode,
        attr.kind().as_str_name().to_lowercase(),
        mode(attr),
        attr.size,
        attr.nlink,
        attr.uid,
        attr.gid
    )
}
