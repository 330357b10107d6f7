//! The disks of this node: formatted once, opened at start, described to the cluster.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use ff2_daemon::config::{DiskConfig, StoragedConfig};
use ff2_proto::pb;
use ff2_storage_core::format::{SECTOR, Superblock};

use crate::engine::{Engine, EngineOptions, FormatOptions, SharedIndex};

/// A disk in use.
#[derive(Debug)]
pub struct OpenDisk {
    pub index: u32,
    pub path: PathBuf,
    pub uuid: [u8; 16],
    pub engine: Engine,
}

impl OpenDisk {
    pub fn describe(&self) -> pb::Disk {
        let space = self.engine.space();
        pb::Disk {
            index: self.index,
            uuid: self.uuid.to_vec().into(),
            path: self.path.display().to_string(),
            capacity_bytes: space.capacity_bytes,
            used_bytes: space.used_bytes,
            failed: self.engine.is_failed(),
        }
    }
}

/// Makes the disks that are not made yet. Returns how many it made.
pub fn format(config: &StoragedConfig) -> Result<usize> {
    let mut made = 0;
    for disk in &config.disks {
        if Engine::is_formatted(&disk.path) {
            continue;
        }
        let options = FormatOptions { size_bytes: disk.size_bytes };
        Engine::format(&disk.path, &options)
            .with_context(|| format!("format the disk in {}", disk.path.display()))?;
        made += 1;
    }
    Ok(made)
}

/// Opens all disks. One that cannot be opened is left out: its targets are then away, and the others
/// serve. Blocking; needs a tokio runtime around it.
pub fn open(config: &StoragedConfig) -> Result<Vec<OpenDisk>> {
    let tuning = &config.storage;
    let options = EngineOptions {
        depth: tuning.disk_depth,
        disk_thread: tuning.disk_threads,
        sync_data: tuning.sync_data,
        shared: SharedIndex::default(),
    };
    let mut opened = Vec::new();
    for (index, disk) in config.disks.iter().enumerate() {
        match open_one(index, disk, &options) {
            Ok(disk) => opened.push(disk),
            Err(error) => {
                let path = disk.path.display();
                tracing::error!(%path, error = format!("{error:#}"), "a disk cannot be opened");
            }
        }
    }
    anyhow::ensure!(
        !opened.is_empty(),
        "none of the {} disks can be opened; the log says why (a new one needs `format` first)",
        config.disks.len()
    );
    Ok(opened)
}

fn open_one(index: usize, disk: &DiskConfig, options: &EngineOptions) -> Result<OpenDisk> {
    anyhow::ensure!(
        Engine::is_formatted(&disk.path),
        "{} holds no disk: run `ff2-storaged --config F format` first",
        disk.path.display()
    );
    let uuid = uuid(&disk.path)?;
    let engine = Engine::open(&disk.path, options.clone())?;
    let index = u32::try_from(index).context("number the disk")?;
    Ok(OpenDisk { index, path: disk.path.clone(), uuid, engine })
}

fn uuid(dir: &Path) -> Result<[u8; 16]> {
    let path = dir.join("data");
    let mut bytes = vec![0; SECTOR as usize];
    let data = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    data.read_exact_at(&mut bytes, 0).with_context(|| format!("read {}", path.display()))?;
    let superblock = Superblock::decode(&bytes);
    Ok(superblock.with_context(|| format!("decode the superblock of {}", path.display()))?.uuid)
}
