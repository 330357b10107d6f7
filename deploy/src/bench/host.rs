//! On what a report was made: without it, figures say nothing.

use std::{fs, path::Path, thread};

use anyhow::Result;
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    bytes::ByteSize,
    cluster::{Folder, Role},
};

#[derive(Debug, Serialize)]
pub(super) struct Host {
    date: String,
    cpu: String,
    cores: usize,
    memory: String,
    kernel: String,
    disk: String,
    cluster: String,
    build: &'static str,
    /// Of 1, 5 and 15 minutes, before the first run.
    load_before: String,
}

impl Host {
    pub(super) fn look(dir: &Path) -> Result<Self> {
        let now = OffsetDateTime::now_utc();
        let file = Folder::new(dir.to_path_buf()).load()?;
        let count = |role| file.of(role).count();
        let disks: u32 = file.of(Role::Storaged).map(|storaged| storaged.disks).sum();
        Ok(Self {
            date: format!("{} {:02}:{:02} UTC", now.date(), now.hour(), now.minute()),
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: thread::available_parallelism()?.get(),
            memory: memory(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            disk: disk(&read("/proc/self/mountinfo"), dir),
            cluster: format!(
                "{} metads, {} storageds with {disks} disks in all, {} replicas, all on this disk",
                count(Role::Metad),
                count(Role::Storaged),
                file.replicas
            ),
            build: if cfg!(debug_assertions) {
                "dev (dependencies at opt-level 2, RocksDB and ff2 at 1, debug assertions)"
            } else {
                "release"
            },
            load_before: load(),
        })
    }

    pub(super) fn text(&self) -> String {
        format!(
            "{}; {}, {} cores, {}; Linux {}; {}; build: {}. Cluster: {}. Load average before: {}, \
             after: {}.",
            self.date,
            self.cpu,
            self.cores,
            self.memory,
            self.kernel,
            self.disk,
            self.build,
            self.cluster,
            self.load_before,
            load()
        )
    }
}

fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// What cannot be read is shown as missing: it must not cost the figures.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn field(text: &str, name: &str) -> String {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(key, _)| key.trim() == name);
    found.map_or("?", |(_, value)| value.trim()).to_owned()
}

fn memory(meminfo: &str) -> String {
    let kib = field(meminfo, "MemTotal").split(' ').next().and_then(|kib| kib.parse().ok());
    kib.map_or_else(|| "?".to_owned(), |kib: u64| ByteSize(kib << 10).to_string())
}

/// The file system and device that hold `path`: the longest mount point above it counts.
fn disk(mountinfo: &str, path: &Path) -> String {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?;
        let mut words = right.split(' ');
        path.starts_with(point).then(|| (point.len(), words.next(), words.next()))
    });
    match mounts.max() {
        Some((_, Some(kind), Some(device))) => format!("{kind} on {device}"),
        _ => "disk ?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(field("processor\t: 0\nmodel name\t: A CPU\n", "model name"), "A CPU");
        assert_eq!(memory("MemTotal:       16384 kB\n"), "16 MiB");
        assert_eq!(memory(""), "?");
        let table = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /var rw shared:1 - xfs /dev/b rw\n";
        assert_eq!(disk(table, Path::new("/var/tmp")), "xfs on /dev/b");
        assert_eq!(disk(table, Path::new("/home")), "ext4 on /dev/a");
    }
}
