//! The demo's cluster, driven through the commands that a person would type.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::shown;
use crate::own::Own;

/// After this long, dead servers that were started again must have caught up.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);

pub(super) struct Cluster {
    folder: PathBuf,
    own: Own,
}

impl Cluster {
    pub(super) fn new(folder: PathBuf) -> Result<Self> {
        let own = Own::new(&folder.join("cluster"))?;
        Ok(Self { folder, own })
    }

    pub(super) fn dir(&self) -> String {
        shown(self.own.dir())
    }

    pub(super) fn mount(&self) -> PathBuf {
        self.folder.join("mnt")
    }

    pub(super) fn up(&self) -> Result<()> {
        let mount = shown(&self.mount());
        let servers = ["up", "--metad", "3", "--storaged", "4", "--disks", "2"];
        let rest = ["--disk-size", "8GiB", "--replicas", "3", "--mount", &mount];
        self.show(&[&servers[..], &rest[..]].concat())
    }

    pub(super) fn show(&self, args: &[&str]) -> Result<()> {
        self.own.show(args)
    }

    /// The two kills, due when a third and two thirds of `files` are copied.
    pub(super) fn drills(&self, files: usize) -> Drills<'_> {
        Drills { cluster: self, files, copied: 0, done: 0 }
    }

    /// The metad that leads the namespace group, as `metad/N`.
    fn leader(&self) -> Result<String> {
        let status = self.own.json(&["status"])?;
        let groups = status["groups"].as_array().context("status has groups")?;
        let leader =
            groups.iter().find(|group| group["group"] == 1).context("status has group 1")?;
        let node = leader["leader_node"].as_u64().context("group 1 has a leader")?;
        ensure!(node > 0, "group 1 has no leader");
        // Metads are numbered from 0, their node ids from 1.
        Ok(format!("metad/{}", node - 1))
    }

    /// Starts what was killed, and waits until nothing is left to catch up.
    pub(super) fn revive(&self) -> Result<()> {
        self.show(&["up"])?;
        let started = Instant::now();
        loop {
            let status = self.own.json(&["status"])?;
            if status["healthy"] == true {
                println!("healthy again after {:.1} s", started.elapsed().as_secs_f64());
                return Ok(());
            }
            if started.elapsed() > CATCH_UP_MAX {
                self.show(&["status"])?;
                bail!("the cluster did not become healthy within {} s", CATCH_UP_MAX.as_secs());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// A new mount knows nothing of the old one's caches.
    pub(super) fn remount(&self) -> Result<()> {
        let mount = shown(&self.mount());
        self.show(&["umount", &mount])?;
        self.show(&["mount", &mount])
    }

    pub(super) fn down(&self) {
        if self.own.dir().exists()
            && let Err(problem) = self.show(&["down", "--purge"])
        {
            eprintln!("{problem:#}; look for processes of {}", self.dir());
        }
    }
}

/// Kills servers while a copy runs.
pub(super) struct Drills<'a> {
    cluster: &'a Cluster,
    files: usize,
    copied: usize,
    done: usize,
}

impl Drills<'_> {
    /// Called after each copied file.
    pub(super) fn next_if_due(&mut self) -> Result<()> {
        self.copied += 1;
        if self.done == 0 && self.copied >= self.files / 3 {
            self.done = 1;
            self.cluster.show(&["kill", "storaged/0"])?;
        } else if self.done == 1 && self.copied >= self.files * 2 / 3 {
            self.done = 2;
            let leader = self.cluster.leader()?;
            self.cluster.show(&["kill", &leader])?;
        }
        Ok(())
    }

    pub(super) fn all_done(&self) -> bool {
        self.done == 2
    }
}
