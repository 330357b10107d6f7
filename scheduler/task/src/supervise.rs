//! One attempt on this node, from its start until nothing is left of it.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, PipeWriter},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Signal, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};

use crate::{
    Echo, JobFolder, MakeRoom, RunSpec, environment, limits, logs, port,
    processes::{adopt_orphans, end_all, signal_all},
};

/// How an attempt ended on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// All ranks ended well.
    Finished,
    /// A rank did not; the others were ended with it.
    Failed { rank: u32, how: Ending },
    /// It was asked to make room, and did: with an acknowledgement, by ending, or because its grace was over.
    Suspended { how: Suspension, after_ms: u64 },
    /// It was ended because somebody said so.
    Stopped,
    /// It was ended because nobody said any more that it may go on.
    Expired,
    /// It could not be started, or not be ended.
    NotStarted { why: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suspension {
    /// It said that all is saved.
    Acknowledged,
    /// All its processes ended by themselves.
    Ended,
    /// Its time was over: what it did since its last checkpoint is lost.
    Forced,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    Code(i32),
    Signal(i32),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

#[derive(Debug)]
enum Event {
    Exited(i32, Ending),
    /// Nobody is left.
    Alone,
    Suspend(MakeRoom),
    Stop,
    Expire,
}

/// Says what is to become of a run; clones may be given to others.
#[derive(Clone, Debug)]
pub struct Control(Sender<Event>);

/// What a [`Control`] said; for [`supervise`].
#[derive(Debug)]
pub struct Orders(Receiver<Event>, Sender<Event>);

pub fn control() -> (Control, Orders) {
    let (sender, receiver) = channel();
    (Control(sender.clone()), Orders(receiver, sender))
}

impl Control {
    /// Asks the job to make room. Nothing happens if it is over already.
    pub fn suspend(&self, room: MakeRoom) {
        let _ = self.0.send(Event::Suspend(room));
    }

    /// Ends the job at once.
    pub(crate) fn expire(&self) {
        let _ = self.0.send(Event::Expire);
    }

    /// Ends the job: SIGTERM, and SIGKILL after [`limits::TERM_GRACE`].
    pub fn stop(&self) {
        let _ = self.0.send(Event::Stop);
    }
}

/// Why the run is coming to its end, and when that is forced.
struct Closing {
    why: Why,
    since: Instant,
    until: Instant,
}

#[derive(Clone, Copy, PartialEq)]
enum Why {
    Suspended,
    Failed(u32, Ending),
    Stopped,
    Expired,
}

/// Runs all ranks of this node, and returns when no process is left of them.
///
/// The calling process should have no other children: it takes all that descends from it for the job's.
///
/// # Errors
/// The folder cannot be written, a rank cannot be started, or a process hangs in the kernel after SIGKILL. Nothing
/// else is left then.
pub fn supervise(spec: &RunSpec, orders: Orders, echo: Option<Echo>) -> io::Result<Outcome> {
    spec.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let folder = JobFolder::new(&spec.folder, spec.attempt);
    folder.prepare(&spec.checkpoint, spec.nodes == 1)?;
    if let Some(script) = &spec.script {
        match spec.node_rank {
            0 => folder.put_script(script)?,
            _ => folder.await_script(script)?,
        }
    }
    let spec = &RunSpec { master_port: port::agree(spec, &folder)?, ..spec.clone() };
    adopt_orphans()?;
    let Orders(events, sender) = orders;
    let mut logs = Vec::new();
    let ended = start_all(spec, &folder, echo, &mut logs).and_then(|started| {
        // Not before all are started: a command that cannot be executed is waited for by who started it.
        let sender = sender.clone();
        let reaper = thread::Builder::new().name("reaper".into()).spawn(move || reap(&sender))?;
        Ok((follow(spec, &folder, started, &events), reaper))
    });
    let left = end_all();
    if !left.is_empty() {
        let why =
            format!("processes {left:?} do not end: they hang in the kernel, perhaps on a mount");
        return Err(io::Error::new(io::ErrorKind::TimedOut, why));
    }
    // Nothing of this run may be taken for a part of the next one of this process.
    let outcome = match ended {
        Ok((outcome, reaper)) => reaper.join().map_err(panicked).and(outcome),
        Err(error) => {
            reap(&sender);
            Err(error)
        }
    };
    for log in logs {
        // All ends of its pipe are closed now.
        log.join().map_err(panicked)?;
    }
    outcome
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> io::Error {
    io::Error::other("a thread that watched over the job ended by itself")
}

/// The ranks by process, and what to let go when they are asked to make room.
struct Started {
    ranks: BTreeMap<i32, u32>,
    asked: Option<PipeWriter>,
}

fn start_all(
    spec: &RunSpec,
    folder: &JobFolder,
    echo: Option<Echo>,
    logs: &mut Vec<JoinHandle<u64>>,
) -> io::Result<Started> {
    let (request, asked) = io::pipe()?;
    let request = OwnedFd::from(request);
    let mut ranks = BTreeMap::new();
    for local_rank in 0..spec.ranks {
        let pid = start(spec, folder, local_rank, &request, echo.clone(), logs)?;
        ranks.insert(pid, spec.first_rank + local_rank);
    }
    Ok(Started { ranks, asked: Some(asked) })
}

/// From the start until it is known how it ends; what is left of it is to be ended then.
fn follow(
    spec: &RunSpec,
    folder: &JobFolder,
    started: Started,
    events: &Receiver<Event>,
) -> io::Result<Outcome> {
    let Started { mut ranks, mut asked } = started;
    let mut closing: Option<Closing> = None;
    let how = loop {
        let is_suspended = closing.as_ref().is_some_and(|closing| closing.why == Why::Suspended);
        if is_suspended && folder.is_acknowledged() {
            break Some(Suspension::Acknowledged);
        }
        let event = match &closing {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(closing) => {
                let left = closing.until.saturating_duration_since(Instant::now());
                events.recv_timeout(if is_suspended { left.min(limits::ACK_LOOK) } else { left })
            }
        };
        match event {
            Ok(Event::Exited(pid, how)) => {
                let Some(rank) = ranks.remove(&pid) else { continue };
                if closing.is_none() && how != Ending::Code(0) {
                    closing = Some(end_within(limits::TERM_GRACE, Why::Failed(rank, how)));
                    signal_all(Signal::TERM);
                } else if closing.is_none() && ranks.is_empty() {
                    return Ok(Outcome::Finished);
                }
            }
            Ok(Event::Alone) => break Some(Suspension::Ended),
            Ok(Event::Suspend(room)) if closing.is_none() => {
                closing = Some(end_within(room.grace, Why::Suspended));
                // Where the folder cannot be written (a full disk), the descriptor and the signal still tell.
                let _ = folder.ask(room, spec.node_rank);
                // Its end is what the descriptor says.
                drop(asked.take());
                if let Some(signal) = spec.signal {
                    signal_all(signal.signal());
                }
            }
            Ok(Event::Stop) if !matches!(&closing, Some(Closing { why: Why::Stopped, .. })) => {
                closing = Some(end_within(limits::TERM_GRACE, Why::Stopped));
                signal_all(Signal::TERM);
            }
            Ok(Event::Expire) => {
                closing = Some(end_within(Duration::ZERO, Why::Expired));
                break None;
            }
            Ok(Event::Suspend(_) | Event::Stop) => {}
            Err(RecvTimeoutError::Timeout) => {
                if closing.as_ref().is_some_and(|closing| closing.until <= Instant::now()) {
                    break None;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    let Some(closing) = closing else { return Ok(Outcome::Finished) };
    let after_ms = closing.since.elapsed().as_millis() as u64;
    Ok(match closing.why {
        Why::Suspended => Outcome::Suspended { how: how.unwrap_or(Suspension::Forced), after_ms },
        Why::Failed(rank, how) => Outcome::Failed { rank, how },
        Why::Stopped => Outcome::Stopped,
        Why::Expired => Outcome::Expired,
    })
}

fn end_within(grace: Duration, why: Why) -> Closing {
    let since = Instant::now();
    Closing { why, since, until: since + grace }
}

fn start(
    spec: &RunSpec,
    folder: &JobFolder,
    local_rank: u32,
    request: &OwnedFd,
    echo: Option<Echo>,
    logs: &mut Vec<JoinHandle<u64>>,
) -> io::Result<i32> {
    let rank = spec.first_rank + local_rank;
    let at = |paths: &Option<Vec<PathBuf>>| Some(paths.as_ref()?[local_rank as usize].clone());
    let output = at(&spec.output).unwrap_or_else(|| folder.log(rank));
    let errors = at(&spec.errors).filter(|errors| *errors != output);
    let (reader, writer) = io::pipe()?;
    let (error_reader, error_writer) = match &errors {
        None => (None, writer.try_clone()?),
        Some(_) => {
            let (reader, writer) = io::pipe()?;
            (Some(reader), writer)
        }
    };
    let mut command = Command::new(&spec.command[0]);
    command
        .args(&spec.command[1..])
        .envs(environment::of_rank(spec, local_rank))
        .current_dir(&spec.work_dir)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(error_writer)
        .process_group(0);
    if let Some(user) = spec.user {
        command.uid(user.uid).gid(user.gid);
    }
    let request = request.try_clone()?;
    command.env("FF2_SUSPEND_FD", request.as_raw_fd().to_string());
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            // Nothing of a job outlives the thread that can end it.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // This one stays open.
            rustix::io::fcntl_setfd(&request, rustix::io::FdFlags::empty())?;
            Ok(())
        });
    }
    let child = command.spawn().map_err(|error| {
        let what = format!("start {:?} in {}: {error}", spec.command[0], spec.work_dir.display());
        io::Error::new(error.kind(), what)
    })?;
    logs.push(logs::follow(rank, reader, output, echo.clone())?);
    if let Some((errors, reader)) = errors.zip(error_reader) {
        logs.push(logs::follow(rank, reader, errors, echo)?);
    }
    Ok(i32::try_from(child.id()).expect("a pid"))
}

/// Reaps all that ends, also what ranks left behind, until nobody is left.
fn reap(events: &Sender<Event>) {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => {
                if let Some(how) = ending(status) {
                    // Nobody listens to the last ones.
                    let _ = events.send(Event::Exited(pid.as_raw_nonzero().get(), how));
                }
            }
            Err(rustix::io::Errno::INTR) | Ok(None) => {}
            Err(_) => {
                let _ = events.send(Event::Alone);
                return;
            }
        }
    }
}

fn ending(status: WaitStatus) -> Option<Ending> {
    let code = status.exit_status().map(Ending::Code);
    code.or_else(|| status.terminating_signal().map(Ending::Signal))
}
