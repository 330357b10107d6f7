//! Stopping: a signal becomes a cancelled token, and what still runs has a bounded time to end.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Exit status of a process that was told twice to stop, as shells show an interrupt.
const TOLD_TWICE: i32 = 130;

/// Cancels `stop` at the first SIGTERM or SIGINT; the second one ends the process at once.
pub fn stop_signals(stop: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let name = either(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = name, "stopping; a second signal stops without waiting");
        stop.cancel();
        let name = either(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = name, "told twice to stop: exiting at once");
        std::process::exit(TOLD_TWICE);
    });
    Ok(())
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Waits until all tracked tasks ended, at most `patience`. Returns whether they did.
pub async fn drain(tasks: &TaskTracker, patience: Duration) -> bool {
    tasks.close();
    let ended = tokio::time::timeout(patience, tasks.wait()).await.is_ok();
    if !ended {
        tracing::warn!(tasks = tasks.len(), ?patience, "tasks did not end in time");
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_drain_waits_for_tasks_but_not_for_ever() {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let stopped = stop.clone();
        tasks.spawn(async move { stopped.cancelled().await });
        assert!(!drain(&tasks, Duration::from_millis(10)).await);
        stop.cancel();
        assert!(drain(&tasks, Duration::from_secs(60)).await);
    }

    #[tokio::test]
    async fn the_first_signal_cancels() {
        let stop = CancellationToken::new();
        stop_signals(stop.clone()).unwrap();
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::TERM).unwrap();
        stop.cancelled().await;
    }
}
