//! The disks of the configuration, opened.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf};

use anyhow::{Context, Result, ensure};
use ff2_daemon::config::StoragedConfig;
use ff2_proto::pb;
use ff2_storage_core::format::{SECTOR, Superblock};

use crate::engine::{Engine, EngineOptions, SharedIndex};

/// A disk and what the cluster knows it by.
#[derive(Clone, Debug)]
pub(crate) struct NodeDisk {
    pub(crate) index: u32,
    pub(crate) uuid: bytes::Bytes,
    pub(crate) path: PathBuf,
    pub(crate) engine: Engine,
}

impl NodeDisk {
    /// Opens all disks. Blocking; needs a tokio runtime around it.
    pub(crate) fn open_all(config: &StoragedConfig) -> Result<Vec<Self>> {
        ensure!(!config.disks.is_empty(), "the configuration names no disk");
        let shared = SharedIndex::default();
        let open = |(index, disk): (usize, &ff2_daemon::config::DiskConfig)| -> Result<Self> {
            let path = disk.path.clone();
            ensure!(
                Engine::is_formatted(&path),
                "{} is not formatted: run `ff2-storaged --config FILE format` once",
                path.display()
            );
            let options = EngineOptions {
                depth: config.storage.disk_depth,
                sync_data: config.storage.sync_data,
                shared: shared.clone(),
            };
            let engine = Engine::open(&path, options)
                .with_context(|| format!("open the disk {}", path.display()))?;
            let uuid = uuid(&path)?;
            Ok(Self { index: index as u32, uuid, path, engine })
        };
        config.disks.iter().enumerate().map(open).collect()
    }

    /// As it is reported to the cluster.
    pub(crate) fn record(&self) -> pb::Disk {
        let space = self.engine.space();
        pb::Disk {
            index: self.index,
            uuid: self.uuid.clone(),
            path: self.path.display().to_string(),
            capacity_bytes: space.capacity_bytes,
            used_bytes: space.used_bytes,
            failed: self.engine.is_failed(),
        }
    }
}

fn uuid(path: &std::path::Path) -> Result<bytes::Bytes> {
    let mut sector = vec![0; SECTOR as usize];
    let data = path.join("data");
    File::open(&data)
        .and_then(|file| file.read_exact_at(&mut sector, 0))
        .with_context(|| format!("read the superblock of {}", data.display()))?;
    let superblock = Superblock::decode(&sector).context("read the superblock")?;
    Ok(bytes::Bytes::copy_from_slice(&superblock.uuid))
}
