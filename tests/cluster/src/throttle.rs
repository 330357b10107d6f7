//! A disk that is slow for one process: the kernel lets it make so many accesses a second.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use anyhow::{Context, Result};
use rustix::process::Pid;

use crate::image::Image;

const CONTROLLER: &str = "/sys/fs/cgroup/blkio";

/// A control group of the kernel's block layer, until it is dropped.
#[derive(Debug)]
pub struct Throttle {
    folder: PathBuf,
    device: String,
    pid: Pid,
}

impl Throttle {
    /// Whether this machine lets a test make one.
    pub fn is_possible() -> bool {
        fs::metadata(CONTROLLER).is_ok_and(|found| found.is_dir())
    }

    /// `pid` makes no more than so many reads and so many writes a second on this file system.
    pub fn put(pid: Pid, image: &Image, accesses_per_s: u32) -> Result<Self> {
        let device = fs::metadata(image.path()).context("look at the image")?.dev();
        let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let name = format!("ff2-test-{}", pid.as_raw_nonzero());
        let folder = PathBuf::from(CONTROLLER).join(name);
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        let throttle = Self { folder, device, pid };
        throttle.limit(accesses_per_s)?;
        let (procs, pid) = (throttle.folder.join("cgroup.procs"), pid.as_raw_nonzero());
        fs::write(procs, pid.to_string()).context("put the process into the group")?;
        Ok(throttle)
    }

    fn limit(&self, accesses_per_s: u32) -> Result<()> {
        for what in ["read", "write"] {
            let file = self.folder.join(format!("blkio.throttle.{what}_iops_device"));
            fs::write(&file, format!("{} {accesses_per_s}", self.device))
                .with_context(|| format!("set {}", file.display()))?;
        }
        Ok(())
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // What waits in the group goes on at once; then the process leaves it, unless it died.
        let freed = self.limit(0);
        let everybody = PathBuf::from(CONTROLLER).join("cgroup.procs");
        let _ = fs::write(everybody, self.pid.as_raw_nonzero().to_string());
        if let Err(problem) = freed.and(fs::remove_dir(&self.folder).context("remove the group")) {
            eprintln!("{problem:#}");
        }
    }
}
