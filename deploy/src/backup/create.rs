//! Fetches the states of all groups from one metad, page by page, and writes them to a file.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::BufWriter,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use ff2_group::{
    BackupPage,
    archive::{Amount, GroupBegin, Writer},
};
use ff2_proto::pb;
use serde_json::json;

use crate::{bytes::ByteSize, cli::Surroundings, connect::Admin, output::Progress};

/// The namespace first: what it refers to is then in the cluster's facts, which come later.
const GROUPS: [(u32, &str); 2] = [(1, "the namespace"), (0, "the cluster's facts")];
/// A metad that ends takes its snapshot along; the backup begins anew at another.
const TRIES: u32 = 3;
const BUFFER: usize = 1 << 20;

pub(super) async fn run(around: &Surroundings, file: &Path) -> Result<()> {
    ensure!(!file.exists(), "{} exists: a backup replaces no file", file.display());
    let admin = around.access.connect()?;
    let progress = around.output.progress();
    let partial = beside(file);
    let mut attempt = 1;
    let (cluster_id, amount) = loop {
        match write(&admin, &partial, &progress).await {
            Ok(written) => break written,
            Err(error) if attempt < TRIES && is_let_go(&error) => {
                progress.done("the metad that was asked has ended: the backup begins anew");
                attempt += 1;
            }
            Err(error) => {
                // Of no use to anybody.
                let _ = fs::remove_file(&partial);
                return Err(error);
            }
        }
    };
    fs::rename(&partial, file).with_context(|| format!("rename to {}", file.display()))?;
    sync_folder(file)?;
    progress.finish();
    let bytes = file.metadata().context("look at the backup")?.len();
    let value = json!({
        "file": file, "cluster_id": cluster_id, "pairs": amount.pairs, "bytes": bytes,
    });
    around.output.print(&value, || {
        format!(
            "wrote {}: {} keys, {}; `ff2ctl backup verify` reads it back",
            file.display(),
            amount.pairs,
            ByteSize(bytes)
        )
    })
}

fn beside(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".partial");
    name.into()
}

fn sync_folder(file: &Path) -> Result<()> {
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("sync {}", folder.display()))
}

/// The metad does not have the snapshot: it was started anew, or another metad was asked.
fn is_let_go(error: &anyhow::Error) -> bool {
    error.root_cause().to_string().starts_with("NOT_FOUND")
}

async fn write(admin: &Admin, path: &Path, progress: &Progress) -> Result<(String, Amount)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_secs();
    // What an earlier run left, and may be readable for others.
    let _ = fs::remove_file(path);
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let file = file.with_context(|| format!("make {}", path.display()))?;
    let failed = || format!("write {}", path.display());
    let mut first = page(admin, GROUPS[0].0, None).await?;
    let cluster_id = std::mem::take(&mut first.cluster_id);
    ensure!(!cluster_id.is_empty(), "the cluster is not formed yet: there is nothing to back up");
    let out = BufWriter::with_capacity(BUFFER, file);
    let release = env!("CARGO_PKG_VERSION");
    let mut writer = Writer::new(out, &cluster_id, now, release).with_context(failed)?;
    let mut first = Some(first);
    for (group, name) in GROUPS {
        let mut reply = match first.take() {
            Some(first) => first,
            None => page(admin, group, None).await?,
        };
        let (index, keys, mut done) = (reply.index, reply.keys, 0);
        writer.group(GroupBegin { group, index }).with_context(failed)?;
        loop {
            done += reply.pairs.len() as u64;
            progress.now(format!("{name}: {done} of about {} keys", keys.max(done)));
            let last = reply.pairs.last().map(|pair| pair.key.clone());
            let (snapshot, end) = (reply.snapshot, reply.end);
            if !reply.pairs.is_empty() {
                writer.pairs(reply.pairs).with_context(failed)?;
            }
            let Some(after) = last.filter(|_| !end) else { break };
            reply = page(admin, group, Some((snapshot, after))).await?;
        }
        let amount = writer.end_group().with_context(failed)?;
        progress.done(&format!("{name}: {} keys, {}", amount.pairs, ByteSize(amount.bytes)));
    }
    let (out, amount) = writer.finish().with_context(failed)?;
    let file = out.into_inner().map_err(|error| error.into_error()).with_context(failed)?;
    file.sync_all().with_context(failed)?;
    Ok((cluster_id, amount))
}

/// The first page of a new snapshot, or one of it behind a key.
async fn page(
    admin: &Admin,
    group: u32,
    behind: Option<(u64, bytes::Bytes)>,
) -> Result<pb::ReadBackupReply> {
    let (snapshot, after_key) = behind.unwrap_or_default();
    let request = pb::ReadBackupRequest { group, snapshot, after_key };
    let reply = admin.read_backup(request).await?;
    ensure!(
        BackupPage::is_intact(&reply.pairs, reply.crc32c),
        "a page changed on its way or in memory: try again"
    );
    Ok(reply)
}
