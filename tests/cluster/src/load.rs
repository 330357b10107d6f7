//! Writers that remember what was acknowledged, and a check that all of it is there.
//!
//! They run in a process of their own, `ff2-load`. A test that had files of the mount open could start no
//! program while the cluster is down: the child closes its copies of them before it becomes the program,
//! and each close waits for the namespace.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

pub mod writer;

pub use writer::Acknowledged;

/// From the word to stop to the last report: one operation may just wait for a failover.
const END_PATIENCE: Duration = Duration::from_secs(60);

/// A running load.
#[derive(Debug)]
pub struct Load {
    process: Child,
}

impl Load {
    /// Starts `writers` writers in `folder`, which is made.
    pub fn start(folder: &Path, writers: u64) -> Result<Self> {
        fs::create_dir_all(folder).context("create the load's folder")?;
        let program = crate::target_folder()?.join("debug/ff2-load");
        let process = Command::new(&program)
            .arg(folder)
            .arg(writers.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { process })
    }

    /// Ends the load. An I/O error that a writer saw is an error here.
    pub fn stop(mut self) -> Result<Vec<Acknowledged>> {
        // The end of its input tells it to stop. Its report is short enough for the pipe.
        drop(self.process.stdin.take());
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().context("wait for the load")? {
                break status;
            }
            if started.elapsed() > END_PATIENCE {
                bail!("the load did not end within {} s", END_PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        ensure!(status.success(), "the load failed: {status}");
        let report = self.process.stdout.take().context("the load has an output")?;
        serde_json::from_reader(report).context("read the load's report")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended. One that waits for the file system ends as soon as that answers or is gone.
        let _ = self.process.kill();
    }
}
