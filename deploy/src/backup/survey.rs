//! Reads a backup through.

use std::{fs::File, io::BufReader, path::Path, time::SystemTime};

use anyhow::{Context, Result, bail, ensure};
use ff2_group::archive::{Amount, Header, Piece, Reader};
use ff2_meta_core::{
    Kv, MemKv,
    cluster::{self, RestoreTimes},
    namespace,
};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{bytes::ByteSize, cli::Surroundings, output::Progress};

const BUFFER: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// All checksums.
    AsWritten,
    /// And whether every record can be read that a restore changes.
    AsRestored,
}

type Groups = Vec<(u32, Amount)>;

pub(super) fn run(around: &Surroundings, path: &Path, depth: Depth) -> Result<()> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let size = file.metadata().context("look at it")?.len();
    let progress = around.output.progress();
    let reader = BufReader::with_capacity(BUFFER, file);
    let (header, groups) =
        walk(reader, size, depth, &progress).with_context(|| path.display().to_string())?;
    progress.finish();
    let taken_at = i64::try_from(header.taken_at_s).ok();
    let taken_at = taken_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let taken_at = taken_at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
    let shown = groups.iter().map(
        |(group, amount)| json!({ "group": group, "pairs": amount.pairs, "bytes": amount.bytes }),
    );
    let value = json!({
        "cluster_id": header.cluster_id,
        "taken_at_s": header.taken_at_s,
        "taken_at": taken_at,
        "release": header.release,
        "file_bytes": size,
        "groups": shown.collect::<Vec<_>>(),
        "restorable": (depth == Depth::AsRestored).then_some(true),
    });
    around.output.print(&value, || {
        let mut text = format!(
            "cluster {}, taken {taken_at} by release {}, {}\n",
            header.cluster_id,
            header.release,
            ByteSize(size)
        );
        for (group, amount) in &groups {
            let what = if *group == 0 { "the cluster's facts" } else { "the namespace" };
            let (pairs, bytes) = (amount.pairs, ByteSize(amount.bytes));
            text += &format!("group {group}, {what}: {pairs} keys, {bytes}\n");
        }
        text + match depth {
            Depth::AsWritten => "it is whole",
            Depth::AsRestored => "it is whole, and could be restored",
        }
    })
}

fn walk(
    file: impl std::io::Read,
    size: u64,
    depth: Depth,
    progress: &Progress,
) -> Result<(Header, Groups)> {
    let mut archive = Reader::new(file)?;
    let header = archive.header().clone();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("read the clock")?;
    let times = RestoreTimes { taken_at_s: header.taken_at_s, at_s: now.as_secs() };
    let mut groups = Groups::new();
    let mut facts = MemKv::new();
    let mut current = 0;
    loop {
        progress.now(format!("read {} of {}", ByteSize(archive.at()), ByteSize(size)));
        match archive.next_piece()? {
            Piece::Group(begin) => current = begin.group,
            Piece::GroupEnd(amount) => groups.push((current, amount)),
            Piece::End(_) => break,
            Piece::Pairs(_) if depth == Depth::AsWritten => {}
            Piece::Pairs(pairs) if current == 0 => {
                pairs.into_iter().for_each(|pair| facts.put(&pair.key, pair.value));
            }
            Piece::Pairs(pairs) => {
                for pair in &pairs {
                    namespace::restored(&pair.key, &pair.value, times.at_s)
                        .context("a record of the namespace")?;
                }
            }
        }
    }
    let ids: Vec<u32> = groups.iter().map(|(group, _)| *group).collect();
    ensure!(ids == [1, 0], "it has the groups {ids:?}, not those of a cluster");
    if depth == Depth::AsRestored
        && let Err(status) = cluster::restore(&mut facts, times)
    {
        bail!("the cluster's facts cannot be restored: {status}");
    }
    Ok((header, groups))
}
