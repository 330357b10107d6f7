//! Starting and stopping processes of the local cluster. A process is always named by its pid *and* its
//! start time, from the pid file that it holds locked: no stranger is ever signalled.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ff2_daemon::{PidFile, ProcessId, admin_get};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cluster::{Folder, Name};

/// A daemon that was asked to stop drains for up to 20 s; then it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(25);
const POLL: Duration = Duration::from_millis(20);
/// Lines of a log that a failure shows.
const LOG_LINES: usize = 12;

/// The program of a role: it lies beside ff2ctl.
pub(crate) fn program(name: Name) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find ff2ctl's own program file")?;
    let path = own.with_file_name(name.role.program());
    ensure!(
        path.is_file(),
        "{} is missing: build it (`make build`), or install it beside ff2ctl",
        path.display()
    );
    Ok(path)
}

/// The running process of this name, if it runs.
pub(crate) fn running(folder: &Folder, name: Name) -> Option<ProcessId> {
    PidFile::running(&folder.data(name))
}

/// Starts it in a session of its own, so that it outlives this terminal.
pub(crate) fn start(folder: &Folder, name: Name, arguments: &[&str]) -> Result<Child> {
    let log_path = folder.log(name);
    let mut options = OpenOptions::new();
    let log = options.append(true).create(true).mode(0o600).open(&log_path);
    let log = log.with_context(|| format!("open {}", log_path.display()))?;
    let mut command = Command::new(program(name)?);
    command
        .arg("--config")
        .arg(folder.config(name))
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log);
    // SAFETY: between fork and exec only setsid(2) is called, which is async-signal-safe; it touches
    // no memory and no lock of this process.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(io::Error::from));
    }
    command.spawn().with_context(|| format!("start {name}"))
}

/// Runs a daemon's `format` to its end.
pub(crate) async fn format(folder: &Folder, name: Name) -> Result<()> {
    run_to_end(folder, name, &["format"]).await
}

/// Runs a command of a daemon's program that makes its folder.
pub(crate) async fn run_to_end(folder: &Folder, name: Name, arguments: &[&str]) -> Result<()> {
    let output = tokio::process::Command::new(program(name)?)
        .arg("--config")
        .arg(folder.config(name))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("start {name} to format its folder"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{name} could not format its folder:\n{}", last_lines(&said));
}

/// Waits until its admin socket says that it serves. `child` is looked at if this process started it.
pub(crate) async fn wait_ready(
    folder: &Folder,
    name: Name,
    mut child: Option<Child>,
    patience: Duration,
) -> Result<()> {
    let started = Instant::now();
    loop {
        if is_ready(folder, name).await {
            return Ok(());
        }
        if let Some(child) = &mut child
            && let Some(status) = child.try_wait().context("ask for the process' end")?
        {
            bail!("{name} ended at its start ({status}). {}", log_tail(folder, name));
        }
        ensure!(
            started.elapsed() < patience,
            "{name} did not get ready within {} s. {}",
            patience.as_secs(),
            log_tail(folder, name)
        );
        tokio::time::sleep(POLL).await;
    }
}

pub(crate) async fn is_ready(folder: &Folder, name: Name) -> bool {
    running(folder, name).is_some()
        && admin_get(&folder.data(name), "/status")
            .await
            .is_ok_and(|status| status["ready"] == true)
}

/// Asks it to stop, then makes it; returns when it is gone. Nothing happens if it does not run.
pub(crate) async fn stop(folder: &Folder, name: Name) -> Result<Stopped> {
    let Some(process) = running(folder, name) else { return Ok(Stopped::WasDown) };
    if !signal(process, Signal::TERM)? {
        return Ok(Stopped::WasDown);
    }
    if wait_end(process, STOP_PATIENCE).await {
        return Ok(Stopped::Cleanly);
    }
    signal(process, Signal::KILL)?;
    ensure!(
        wait_end(process, STOP_PATIENCE).await,
        "{name} (process {}) cannot be killed",
        process.pid
    );
    Ok(Stopped::Killed)
}

/// How a process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    WasDown,
    Cleanly,
    Killed,
}

/// Waits for the end of a process that was signalled or whose mount is gone.
pub(crate) async fn wait_end(process: ProcessId, patience: Duration) -> bool {
    let started = Instant::now();
    while process.is_running() {
        if started.elapsed() > patience {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// Signals exactly this process; false if it is gone. The pid file descriptor pins the process, and
/// its start time is compared after that, so the pid cannot have been given to another in between.
pub(crate) fn signal(process: ProcessId, signal: Signal) -> Result<bool> {
    let pid =
        i32::try_from(process.pid).ok().and_then(Pid::from_raw).context("a pid is positive")?;
    let pinned = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pinned) => pinned,
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(error) => return Err(error).context("open the process"),
    };
    if !process.is_running() {
        return Ok(false);
    }
    match pidfd_send_signal(&pinned, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => {
            Err(error).with_context(|| format!("signal process {}; is it yours?", process.pid))
        }
    }
}

/// The end of a log, for a failure's message.
pub(crate) fn log_tail(folder: &Folder, name: Name) -> String {
    let path = folder.log(name);
    let text = fs::read_to_string(&path).unwrap_or_default();
    if text.trim().is_empty() {
        return format!("Its log {} is empty", path.display());
    }
    format!("Its log, {}, ends with:\n{}", path.display(), last_lines(&text))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child() -> (Child, ProcessId) {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap().unwrap();
        (child, process)
    }

    #[test]
    fn only_the_very_process_is_signalled() {
        let (mut child, process) = child();
        let another = ProcessId { start: process.start + 1, ..process };
        assert!(!signal(another, Signal::KILL).unwrap());
        assert!(child.try_wait().unwrap().is_none(), "a stranger was killed");
        assert!(signal(process, Signal::KILL).unwrap());
        child.wait().unwrap();
        assert!(!signal(process, Signal::KILL).unwrap());
    }

    #[tokio::test]
    async fn the_end_is_seen() {
        let (mut child, process) = child();
        assert!(!wait_end(process, Duration::from_millis(30)).await);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(wait_end(process, Duration::from_secs(5)).await);
    }

    #[test]
    fn the_tail_is_short() {
        let text: String = (0..100).map(|i| format!("line {i}\n")).collect();
        let tail = last_lines(&text);
        assert_eq!(tail.lines().count(), LOG_LINES);
        assert!(tail.ends_with("line 99"));
    }
}
