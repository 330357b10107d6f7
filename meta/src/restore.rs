//! Makes the first replicas of a cluster's groups from a backup, in the place of those that were lost.
//!
//! Every founding metad does it with the same file and the same time of the restore, and so gets the same states
//! (docs/design/0009-backup.md). All is made beside and moved to its place in the end: what is cut short or refused
//! leaves an empty folder.

use std::{
    fs::{self, File},
    io::{BufReader, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Error, Result, bail, ensure};
use bytes::Bytes;
use ff2_daemon::config::MetadConfig;
use ff2_fabric::ClusterKey;
use ff2_group::{
    archive::{Piece, Reader},
    group_folder, restore_group,
};
use ff2_meta_core::{
    Kv, MemKv,
    cluster::{self, RestoreTimes},
    namespace,
};
use ff2_proto::{CLUSTER_GROUP, GroupId, pb};

use crate::{NAMESPACE_GROUP, format::founding_members, limits};

/// Where the replicas are made, in the data folder.
const STAGE: &str = "restoring";

/// Where the state comes from.
#[derive(Clone, Debug)]
pub struct Restore {
    pub file: PathBuf,
    /// When the cluster is restored, in seconds since 1970: the same on all its founding metads.
    pub at_s: u64,
}

/// Writes the folders of all groups for this node. Refuses a folder that holds a replica.
pub fn restore(config: &MetadConfig, from: &Restore) -> Result<()> {
    ClusterKey::load(&config.security.cluster_key_file).context("load the cluster key")?;
    fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("create {}", config.data_dir.display()))?;
    for group in [CLUSTER_GROUP, NAMESPACE_GROUP] {
        let folder = group_folder(&config.data_dir, group);
        ensure!(
            !folder.exists(),
            "{} holds a replica: a backup is restored where all metads were lost, into empty folders; \
             move this one away if that is so",
            folder.display()
        );
    }
    let stage = config.data_dir.join(STAGE);
    remove(&stage)?;
    let name = from.file.display();
    let made = fill(config, &stage, from).with_context(|| format!("restore {name}"));
    if made.is_err() {
        remove(&stage)?;
    }
    made?;
    for group in [NAMESPACE_GROUP, CLUSTER_GROUP] {
        let made = group_folder(&stage, group);
        fs::rename(&made, group_folder(&config.data_dir, group))
            .with_context(|| format!("move {} to its place", made.display()))?;
    }
    remove(&stage)?;
    File::open(&config.data_dir).and_then(|folder| folder.sync_all()).context("sync the folder")
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn fill(config: &MetadConfig, stage: &Path, from: &Restore) -> Result<()> {
    let file = File::open(&from.file).context("open it")?;
    let mut archive = Reader::new(BufReader::with_capacity(limits::ARCHIVE_BUFFER, file))?;
    let header = archive.header().clone();
    ensure!(
        header.cluster_id == config.cluster_id,
        "it is of cluster {}, and this metad is configured for {}",
        header.cluster_id,
        config.cluster_id
    );
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    ensure!(
        from.at_s >= header.taken_at_s && from.at_s <= now.as_secs() + limits::CLOCKS_APART_S,
        "the time of the restore, {}, is before the backup or in the future: give `date +%s` of now, \
         the same on all metads",
        from.at_s
    );
    let times = RestoreTimes { taken_at_s: header.taken_at_s, at_s: from.at_s };
    let members = founding_members(config);
    let mut groups = Vec::new();
    loop {
        let group = match archive.next_piece()? {
            Piece::Group(begin) => GroupId(begin.group),
            Piece::End(_) => break,
            Piece::Pairs(_) | Piece::GroupEnd(_) => bail!("its parts are in a wrong order"),
        };
        ensure!(!groups.contains(&group), "it has group {group} twice");
        groups.push(group);
        let place = |next: &mut dyn FnMut() -> Result<Option<Vec<pb::KeyValue>>>| {
            restore_group(stage, group, config.node, &members, from.at_s, next)
                .with_context(|| format!("make group {group}"))
        };
        if group == CLUSTER_GROUP {
            let mut pages = cluster_pages(&mut archive, times)?.into_iter();
            place(&mut || Ok(pages.next()))?;
        } else if group == NAMESPACE_GROUP {
            place(&mut || namespace_page(&mut archive, from.at_s))?;
        } else {
            bail!("it has group {group}, which this release does not know");
        }
    }
    ensure!(groups.len() == 2, "it lacks a group");
    Ok(())
}

/// The group's pairs of the next frame.
fn pairs<R: Read>(archive: &mut Reader<R>) -> Result<Option<Vec<pb::KeyValue>>> {
    match archive.next_piece()? {
        Piece::Pairs(pairs) => Ok(Some(pairs)),
        Piece::GroupEnd(_) => Ok(None),
        Piece::Group(_) | Piece::End(_) => bail!("its parts are in a wrong order"),
    }
}

/// The cluster's facts are changed as a whole: they are few.
fn cluster_pages<R: Read>(
    archive: &mut Reader<R>,
    times: RestoreTimes,
) -> Result<Vec<Vec<pb::KeyValue>>> {
    let mut kv = MemKv::new();
    while let Some(page) = pairs(archive)? {
        page.into_iter().for_each(|pair| kv.put(&pair.key, pair.value));
    }
    cluster::restore(&mut kv, times).map_err(Error::new)?;
    let all: Vec<(&Bytes, &Bytes)> = kv.pairs().collect();
    let page = |pairs: &[(&Bytes, &Bytes)]| {
        let pair = |(key, value): &(&Bytes, &Bytes)| pb::KeyValue {
            key: (*key).clone(),
            value: (*value).clone(),
        };
        pairs.iter().map(pair).collect()
    };
    Ok(all.chunks(limits::RESTORED_TOGETHER).map(page).collect())
}

/// A namespace may be larger than memory.
fn namespace_page<R: Read>(
    archive: &mut Reader<R>,
    at_s: u64,
) -> Result<Option<Vec<pb::KeyValue>>> {
    let Some(page) = pairs(archive)? else { return Ok(None) };
    let mut restored = Vec::with_capacity(page.len());
    for pair in page {
        let pairs = namespace::restored(&pair.key, &pair.value, at_s).map_err(Error::new)?;
        restored.extend(pairs.into_iter().map(|(key, value)| pb::KeyValue { key, value }));
    }
    Ok(Some(restored))
}
