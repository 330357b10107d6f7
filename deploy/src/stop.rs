//! A request to stop long work: a signal, or too much time. Work looks at it between its steps; the
//! commands that it runs are ended with it. The demo and the benchmarks leave nothing behind this way.

use std::{
    fmt,
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Output},
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

const POLL: Duration = Duration::from_millis(10);
/// Work that was asked to stop looks at the request between two calls. A call that hangs longer than this
/// waits for what its caller is about to take down.
const GRACE: Duration = Duration::from_secs(3);

/// Why to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Signal,
    Overrun(Duration),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal => f.write_str("interrupted"),
            Self::Overrun(limit) => write!(f, "not done within {} s", limit.as_secs()),
        }
    }
}

/// Shared by the work and those who may stop it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<OnceLock<Reason>>);

impl Stop {
    /// Requested by the first SIGINT, SIGTERM or SIGHUP; later ones change nothing.
    pub(crate) fn on_signals() -> Result<Self> {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let entered = tokio.enter();
        let listen = |kind| signal(kind).context("listen to signals");
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut hangup = listen(SignalKind::hangup())?;
        drop(entered);
        let stop = Self::default();
        let asked = stop.clone();
        let listener = thread::Builder::new().name("signals".into());
        let listening = listener.spawn(move || {
            tokio.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => {}
                    }
                    asked.request(Reason::Signal);
                }
            });
        });
        listening.context("start the thread that listens to signals")?;
        Ok(stop)
    }

    /// The first reason stays.
    pub(crate) fn request(&self, reason: Reason) {
        // Somebody may have asked before; then there is nothing to add.
        let _ = self.0.set(reason);
    }

    pub(crate) fn reason(&self) -> Option<Reason> {
        self.0.get().copied()
    }

    /// Fails once the stop is requested.
    pub(crate) fn check(&self) -> Result<()> {
        match self.reason() {
            Some(reason) => Err(anyhow!("{reason}")),
            None => Ok(()),
        }
    }

    /// Runs `work` on a thread of its own until it ends, `limit` is over, or somebody asks for the stop.
    /// Work that hangs in the middle of a call then is left behind.
    pub(crate) fn supervise<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (done, outcome) = mpsc::sync_channel(1);
        let started = Instant::now();
        let mut asked_at = None;
        let worker = thread::Builder::new().name("work".into());
        worker.spawn(move || done.send(work())).context("start a thread")?;
        loop {
            match outcome.recv_timeout(POLL) {
                Ok(outcome) => return outcome,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the work's thread is gone"),
            }
            if started.elapsed() > limit {
                self.request(Reason::Overrun(limit));
            }
            if let Some(reason) = self.reason()
                && asked_at.get_or_insert_with(Instant::now).elapsed() > GRACE
            {
                bail!("{reason}");
            }
        }
    }

    /// Runs a command to its end, or kills it and what it started when the stop is requested. The output
    /// has what was piped to standard output.
    pub(crate) fn run(&self, command: &mut Command) -> Result<Output> {
        // In a group of its own, so that Ctrl-C reaches this program alone, which then decides.
        let mut child = command.process_group(0).spawn()?;
        let reader = child.stdout.take().map(|mut pipe| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.read_to_end(&mut bytes).map(|_| bytes)
            })
        });
        let status = self.wait(&mut child)?;
        let stdout = match reader {
            Some(reader) => reader.join().map_err(|_| io::Error::other("the reader is gone"))??,
            None => Vec::new(),
        };
        Ok(Output { status, stdout, stderr: Vec::new() })
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus> {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if let Err(reason) = self.check() {
                // Not reaped yet, so the group is still this child's.
                kill_process_group(Pid::from_child(child), Signal::KILL)?;
                child.wait()?;
                return Err(reason);
            }
            thread::sleep(POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_command_ends_with_the_stop() {
        let stop = Stop::default();
        let output = stop.run(Command::new("echo").arg("x").stdout(Stdio::piped())).unwrap();
        assert_eq!(output.stdout, b"x\n");
        let asked = stop.clone();
        let started = Instant::now();
        let killer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            asked.request(Reason::Signal);
        });
        // The grandchild holds the pipe: it must be killed too.
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600; true"]).stdout(Stdio::piped());
        let problem = stop.run(&mut command).unwrap_err();
        assert_eq!(problem.to_string(), "interrupted");
        assert!(started.elapsed() < LONG);
        killer.join().unwrap();
    }

    #[test]
    fn work_is_supervised() {
        assert_eq!(Stop::default().supervise(LONG, || Ok(7)).unwrap(), 7);
        let stop = Stop::default();
        let seen = stop.clone();
        let problem = stop.supervise(Duration::from_millis(20), move || {
            while seen.check().is_ok() {
                thread::sleep(POLL);
            }
            seen.check()
        });
        assert!(problem.unwrap_err().to_string().contains("not done within"));
        // The first reason stays.
        stop.request(Reason::Signal);
        assert_ne!(stop.reason(), Some(Reason::Signal));
    }

    #[test]
    fn work_that_hangs_is_left_behind() {
        let stop = Stop::default();
        stop.request(Reason::Signal);
        let problem = stop.supervise(LONG, || {
            thread::sleep(LONG);
            Ok(())
        });
        assert_eq!(problem.unwrap_err().to_string(), "interrupted");
    }
}
