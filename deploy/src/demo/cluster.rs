//! The demo's cluster, driven through the commands that a person would type.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{folder::Folder, say::Say, shown};
use crate::{own::Own, stop::Stop};

/// After this long, dead servers that were started again must have caught up.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);
/// A group elects within a second or two, also on a busy machine.
const ELECTION_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(300);

pub(super) struct Cluster {
    own: Own,
    mount: PathBuf,
    stop: Stop,
    say: Say,
}

impl Cluster {
    pub(super) fn new(folder: &Folder, stop: Stop, say: Say) -> Result<Self> {
        let own = Own::new(&folder.cluster(), stop.clone())?;
        Ok(Self { own, mount: folder.mount(), stop, say })
    }

    pub(super) fn mount(&self) -> PathBuf {
        self.mount.clone()
    }

    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }

    pub(super) fn up(&self) -> Result<()> {
        self.say.command(&format!("export FF2_DIR={}", shown(self.own.dir())));
        let mount = shown(&self.mount);
        let servers = ["up", "--metad", "3", "--storaged", "4", "--disks", "2"];
        let disks = ["--disk-size", "8GiB", "--replicas", "3", "--mount", &mount];
        let agents = ["--agents", "2", "--fake-gpus", "8"];
        self.show(&[&servers[..], &disks[..], &agents[..]].concat())
    }

    pub(super) fn json(&self, args: &[&str]) -> Result<Value> {
        self.own.json(args)
    }

    /// Prints the command, and runs it.
    pub(super) fn show(&self, args: &[&str]) -> Result<()> {
        self.say.command(&format!("ff2ctl {}", args.join(" ")));
        self.own.run(args, self.say.is_quiet())
    }

    /// The two kills, due when a third and two thirds of `files` are copied.
    pub(super) fn drills(&self, files: usize) -> Drills<'_> {
        Drills { cluster: self, files, copied: 0, done: 0 }
    }

    /// The metad that leads the namespace group, as `metad/N`.
    fn leader(&self) -> Result<String> {
        let started = Instant::now();
        loop {
            let status = self.own.json(&["status"])?;
            let groups = status["groups"].as_array().context("status has groups")?;
            let group = groups.iter().find(|group| group["group"] == 1);
            let node = group.context("status has group 1")?["leader_node"].as_u64();
            // Metads are numbered from 0, their node ids from 1; node 0 is nobody.
            if let Some(index) = node.unwrap_or(0).checked_sub(1) {
                return Ok(format!("metad/{index}"));
            }
            if started.elapsed() > ELECTION_MAX {
                bail!("group 1 has no leader for {} s", ELECTION_MAX.as_secs());
            }
            thread::sleep(POLL);
        }
    }

    /// Starts what was killed, and waits until nothing is left to catch up; returns how long that took.
    pub(super) fn revive(&self) -> Result<Duration> {
        let started = Instant::now();
        self.show(&["up"])?;
        loop {
            let status = self.own.json(&["status"])?;
            if status["healthy"] == true {
                self.say.line(&format!("healthy after {:.1} s", started.elapsed().as_secs_f64()));
                return Ok(started.elapsed());
            }
            if started.elapsed() > CATCH_UP_MAX {
                self.show(&["status"])?;
                bail!("the cluster did not become healthy within {} s", CATCH_UP_MAX.as_secs());
            }
            thread::sleep(POLL);
        }
    }

    /// A new mount knows nothing of the old one's caches.
    pub(super) fn remount(&self) -> Result<()> {
        let mount = shown(&self.mount);
        self.show(&["umount", &mount])?;
        self.show(&["mount", &mount])
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
