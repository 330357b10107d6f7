//! When to stop, and as a job the answer to who asked (docs/JOBS.md).

use std::{env, fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Between two looks whether it is to make room: a grace is seconds.
const SUSPEND_LOOK: Duration = Duration::from_millis(200);

/// By whom a process is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    BySignal,
    /// As a job, it is asked to make room.
    ByScheduler,
}

impl Told {
    /// Returns when it is so.
    ///
    /// # Errors
    /// Signals cannot be listened for.
    pub(crate) async fn wait() -> Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let told = tokio::select! {
            _ = terminate.recv() => Self::BySignal,
            _ = tokio::signal::ctrl_c() => Self::BySignal,
            () = suspended() => Self::ByScheduler,
        };
        tracing::info!(?told, "told to stop: what runs is finished first");
        Ok(told)
    }

    /// The last thing of all: as a job this process is ended at once.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn acknowledge(self) -> Result<()> {
        let path = env::var_os("FF2_ACK").filter(|_| self == Self::ByScheduler);
        let Some(path) = path.map(PathBuf::from) else { return Ok(()) };
        fs::write(&path, "").with_context(|| format!("write {}", path.display()))
    }
}

async fn suspended() {
    let Some(path) = env::var_os("FF2_SUSPEND").map(PathBuf::from) else {
        return std::future::pending().await;
    };
    while !path.exists() {
        tokio::time::sleep(SUSPEND_LOOK).await;
    }
}
