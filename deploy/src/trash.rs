//! `ff2ctl trash set|show|list|restore|empty`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{
    audit::ago,
    bytes::ByteSize,
    cli::Surroundings,
    connect::Admin,
    output::{Progress, table},
};

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Keep removed files for a while, or do not any more.
    ///
    /// From then on a file that loses its last name (by rm, or because another was renamed over it) goes to the
    /// trash, and is gone for good when its time is over, or earlier if the disks are nearly full. Users find what
    /// they removed in /.trash of a mount. `--keep 0` ends it: what is in the trash stays for as long as it would
    /// have.
    Set {
        /// 7d, 12h, 30m; 0: removed files are gone at once.
        #[arg(long, value_name = "TIME", value_parser = ago)]
        keep: Duration,
        /// [default: default]
        #[arg(long, value_name = "NAME")]
        volume: Option<String>,
    },
    /// For how long files are kept, and how much that is now.
    Show {
        /// [default: default]
        #[arg(long, value_name = "NAME")]
        volume: Option<String>,
    },
    /// Removed files: from where, by whom, when, and when they are gone.
    List {
        /// Only what was removed from this folder, or from those in it.
        #[arg(default_value = "/")]
        folder: String,
        /// [default: default]
        #[arg(long, value_name = "NAME")]
        volume: Option<String>,
    },
    /// Take a file back, or all that was removed from a folder.
    ///
    /// A file goes back to where it was; folders that were removed with it come back as they were. Of several files
    /// that had the same name the one that was removed last comes back.
    Restore {
        /// Number of an entry, of `trash list`.
        #[arg(required_unless_present = "under")]
        entry: Option<u64>,
        /// Its new path, if it is not to be the old one.
        #[arg(long, value_name = "PATH", conflicts_with = "under")]
        to: Option<String>,
        /// All that was removed from this folder, or from those in it.
        #[arg(long, value_name = "FOLDER", conflicts_with = "entry")]
        under: Option<String>,
        /// [default: default]
        #[arg(long, value_name = "NAME")]
        volume: Option<String>,
    },
    /// Removed files are gone for good, and their space is free again.
    Empty {
        /// Only those that were removed before then: 12h, 2d.
        #[arg(long, value_name = "TIME", value_parser = ago, default_value = "0")]
        older_than: Duration,
        /// [default: default]
        #[arg(long, value_name = "NAME")]
        volume: Option<String>,
    },
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let admin = around.access.connect()?;
    let named = |volume: &Option<String>| volume.clone().unwrap_or_default();
    match command {
        Command::Set { keep, volume } => {
            let request = pb::SetTrashRequest { volume: named(volume), keep_s: keep.as_secs() };
            show(around, &admin.set_trash(request).await?.sums.unwrap_or_default())
        }
        Command::Show { volume } => {
            let volume = named(volume);
            let request = pb::ListTrashRequest { volume, sums: true, ..Default::default() };
            show(around, &admin.list_trash(request).await?.sums.unwrap_or_default())
        }
        Command::List { folder, volume } => list(around, &admin, named(volume), folder).await,
        Command::Restore { entry: Some(entry), to, volume, .. } => {
            let to = to.clone().unwrap_or_default();
            let restored = restore(&admin, named(volume), *entry, &to).await?;
            let path = shown(&restored.path);
            let told = json!({ "entry": entry, "path": path });
            around.output.print(&told, || format!("{path} is back"))
        }
        Command::Restore { entry: None, under, volume, .. } => {
            let folder = under.as_deref().context("name an entry, or --under FOLDER")?;
            restore_all(around, &admin, named(volume), folder).await
        }
        Command::Empty { older_than, volume } => {
            let progress = around.output.progress();
            empty(around, &admin, named(volume), older_than.as_secs(), &progress).await
        }
    }
}

async fn restore(admin: &Admin, volume: String, entry: u64, to: &str) -> Result<pb::TrashEntry> {
    let path = to.to_owned().into_bytes().into();
    let request = pb::RestoreTrashRequest { volume, entry, path };
    let restored = admin.restore_trash(request).await?.entry;
    restored.context("the metad does not say what it restored")
}

/// The newest first: of several with one name it is the one that comes back.
async fn restore_all(
    around: &Surroundings,
    admin: &Admin,
    volume: String,
    folder: &str,
) -> Result<()> {
    let progress = around.output.progress();
    let mut entries = Vec::new();
    each_page(admin, &volume, folder, |page| {
        entries.extend(page.into_iter().map(|entry| (entry.entry, entry.path)));
        Ok(())
    })
    .await?;
    let all = entries.len();
    let (mut back, mut left) = (0_u64, Vec::new());
    for (entry, path) in entries.into_iter().rev() {
        progress.now(format!("{back} of {all} files are back"));
        match restore(admin, volume.clone(), entry, "").await {
            Ok(_) => back += 1,
            Err(error) => left.push((entry, shown(&path), error.to_string())),
        }
    }
    progress.finish();
    let value = json!({
        "restored": back,
        "left": left.iter().map(|(entry, path, why)| json!({ "entry": entry, "path": path, "why": why }))
            .collect::<Vec<_>>(),
    });
    around.output.print(&value, || {
        let mut text = format!("{back} files are back\n");
        for (entry, path, why) in &left {
            text.push_str(&format!("not entry {entry}, {path}: {why}\n"));
        }
        text
    })
}

async fn empty(
    around: &Surroundings,
    admin: &Admin,
    volume: String,
    older_than_s: u64,
    progress: &Progress,
) -> Result<()> {
    let mut emptied = 0;
    let sums = loop {
        let request = pb::EmptyTrashRequest { volume: volume.clone(), older_than_s };
        let reply = admin.empty_trash(request).await?;
        emptied += reply.emptied;
        if reply.end {
            break reply.sums.unwrap_or_default();
        }
        progress.now(format!("{emptied} are gone"));
    };
    progress.finish();
    let value = json!({ "emptied": emptied, "entries": sums.entries, "bytes": sums.bytes });
    around.output.print(&value, || {
        let left = format!("{} files with {} are left", sums.entries, ByteSize(sums.bytes));
        format!("{emptied} removed files and folders are gone for good, {left}")
    })
}

/// Shows page by page: there may be millions.
async fn list(around: &Surroundings, admin: &Admin, volume: String, folder: &str) -> Result<()> {
    let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?;
    let now_ns = i64::try_from(now_ns.as_nanos()).unwrap_or(i64::MAX);
    let (mut values, mut rows) = (Vec::new(), Vec::new());
    each_page(admin, &volume, folder, |page| {
        values.extend(page.iter().map(value));
        rows.extend(page.iter().map(|entry| row(entry, now_ns)));
        Ok(())
    })
    .await?;
    around.output.print(&Value::Array(values), || {
        if rows.is_empty() {
            return "nothing\n".to_owned();
        }
        table(&["ENTRY", "SIZE", "BY", "REMOVED", "GONE IN", "PATH"], rows)
    })
}

async fn each_page(
    admin: &Admin,
    volume: &str,
    folder: &str,
    mut with: impl FnMut(Vec<pb::TrashEntry>) -> Result<()>,
) -> Result<()> {
    let mut after = 0;
    loop {
        let request = pb::ListTrashRequest {
            volume: volume.to_owned(),
            after,
            under: folder.to_owned().into_bytes().into(),
            sums: false,
        };
        let reply = admin.list_trash(request).await?;
        with(reply.entries)?;
        if reply.end || reply.after <= after {
            return Ok(());
        }
        after = reply.after;
    }
}

fn show(around: &Surroundings, sums: &pb::TrashSums) -> Result<()> {
    let value = json!({
        "keep_s": sums.keep_s, "kept_s": sums.kept_s, "entries": sums.entries, "bytes": sums.bytes,
    });
    around.output.print(&value, || {
        let keeps = match sums.keep_s {
            0 => "removed files are gone at once".to_owned(),
            keep_s => format!("removed files are kept for {}", long(keep_s)),
        };
        format!("{keeps}; {} files with {} are in the trash", sums.entries, ByteSize(sums.bytes))
    })
}

fn row(entry: &pb::TrashEntry, now_ns: i64) -> Vec<String> {
    let seconds = |ns: i64| u64::try_from(ns / 1_000_000_000).unwrap_or_default();
    vec![
        entry.entry.to_string(),
        ByteSize(entry.size).to_string(),
        entry.removed_by.to_string(),
        format!("{} ago", long(seconds(now_ns.saturating_sub(entry.removed_ns)))),
        long(seconds(entry.goes_ns.saturating_sub(now_ns))),
        shown(&entry.path),
    ]
}

fn value(entry: &pb::TrashEntry) -> Value {
    json!({
        "entry": entry.entry, "path": shown(&entry.path), "inode": entry.inode, "size": entry.size,
        "owner": entry.owner, "removed_by": entry.removed_by, "removed_ns": entry.removed_ns,
        "goes_ns": entry.goes_ns,
    })
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// The two largest units: `6d 23h`.
fn long(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_shown_to_people_and_programs() {
        let second = 1_000_000_000;
        let entry = pb::TrashEntry {
            entry: 7,
            inode: 9,
            path: b"/a/b".as_slice().into(),
            removed_by: 1000,
            removed_ns: 10 * second,
            goes_ns: 86_410 * second,
            size: 5 << 20,
            owner: 1001,
        };
        let shown = row(&entry, 70 * second);
        assert_eq!(shown, ["7", "5 MiB", "1000", "1m 0s ago", "23h 59m", "/a/b"]);
        let told = value(&entry);
        assert_eq!((&told["path"], &told["owner"]), (&json!("/a/b"), &json!(1001)));
        assert_eq!([long(59), long(90_000)], ["59s", "1d 1h"]);
    }
}
