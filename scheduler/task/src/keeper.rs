//! A run in the care of a process of its own, so that whoever ordered it may end and start again meanwhile.
//!
//! The run's folder is on the node, and belongs to who ordered the run:
//!
//! - `run.json`: what is to run, written before the keeper starts;
//! - `control.sock`: takes orders while the run lasts;
//! - `outcome.json`: how it ended. When it is there, nothing of the run is left.
//!
//! A keeper that is killed takes its ranks with it. What these left behind is found by the mark in its
//! environment ([`Run::sweep`]).

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    CheckpointSlot, Control, JobFolder, MakeRoom, Outcome, RunSpec, as_user, control, limits,
    processes, supervise,
};

/// In the environment of each process of a run: its folder.
const MARK: &str = "FF2_RUN";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run(PathBuf);

/// What is known of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    Ended(Outcome),
    /// Its keeper is gone without a word, or never could begin.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Suspend {
        grace_ms: u64,
        #[serde(default)]
        bytes_per_s: Option<u64>,
    },
    Stop,
    /// Go on until then, ms since the machine started.
    Renew {
        until_boot_ms: u64,
    },
    /// When the job writes its checkpoints from now on.
    Slot {
        slot: String,
    },
    /// Only whether somebody is there.
    Look,
}

impl Run {
    /// The folder may be missing yet; its parent must be there.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Starts a run: `keeper` is a command that calls [`Run::keep`] of this folder. Returns once it takes orders,
    /// or has ended.
    ///
    /// # Errors
    /// The run was started before, its folder cannot be written, or the keeper does not start.
    pub fn start(&self, spec: &RunSpec, keeper: &mut Command) -> io::Result<()> {
        spec.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        fs::DirBuilder::new().mode(0o700).create(&self.0)?;
        write_whole(&self.0.join("run.json"), spec)?;
        let errors = fs::File::create(self.0.join("keeper.log"))?;
        keeper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        // SAFETY: setsid is async-signal-safe, and nothing else happens between fork and exec.
        unsafe { keeper.pre_exec(|| rustix::process::setsid().map(drop).map_err(io::Error::from)) };
        let mut child = keeper.spawn()?;
        let until = Instant::now() + limits::KEEPER_START;
        while matches!(self.state()?, State::Lost) {
            if let Some(status) = child.try_wait()?
                && matches!(self.state()?, State::Lost)
            {
                let said = fs::read_to_string(self.0.join("keeper.log")).unwrap_or_default();
                return Err(io::Error::other(format!("the keeper {status}: {}", said.trim())));
            }
            if Instant::now() >= until {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the keeper does not start"));
            }
            thread::sleep(limits::END_LOOK);
        }
        // It is waited for by nobody else: not to be a zombie while this process lives.
        thread::Builder::new().name("keeper".into()).spawn(move || child.wait())?;
        Ok(())
    }

    /// # Errors
    /// The folder cannot be read, or what is in it is not what a keeper wrote.
    pub fn state(&self) -> io::Result<State> {
        if let Some(outcome) = self.outcome()? {
            return Ok(State::Ended(outcome));
        }
        match self.order(&Order::Look) {
            Ok(()) => return Ok(State::Running),
            // Somebody is there, on a machine that is very busy.
            Err(error) if is_late(&error) => return Ok(State::Running),
            Err(_) => {}
        }
        // It may have ended between the two looks.
        Ok(self.outcome()?.map_or(State::Lost, State::Ended))
    }

    fn outcome(&self) -> io::Result<Option<Outcome>> {
        match fs::read(self.0.join("outcome.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks it to make room. As [`Control::suspend`].
    ///
    /// # Errors
    /// No keeper is there; [`Run::state`] says why.
    pub fn suspend(&self, room: MakeRoom) -> io::Result<()> {
        let MakeRoom { grace, bytes_per_s } = room;
        self.order(&Order::Suspend { grace_ms: grace.as_millis() as u64, bytes_per_s })
    }

    /// Ends it. As [`Control::stop`].
    ///
    /// # Errors
    /// As [`Run::suspend`].
    pub fn stop(&self) -> io::Result<()> {
        self.order(&Order::Stop)
    }

    /// Lets it go on until then, ms since the machine started ([`boot_ms`]). Without it the run ends when its time is
    /// over.
    ///
    /// # Errors
    /// As [`Run::suspend`].
    pub fn renew(&self, until_boot_ms: u64) -> io::Result<()> {
        self.order(&Order::Renew { until_boot_ms })
    }

    /// Tells the job when it writes its checkpoints from now on.
    ///
    /// # Errors
    /// As [`Run::suspend`].
    pub fn slot(&self, slot: CheckpointSlot) -> io::Result<()> {
        self.order(&Order::Slot { slot: slot.to_string() })
    }

    /// What is to run.
    ///
    /// # Errors
    /// The folder is not that of a run.
    pub fn spec(&self) -> io::Result<RunSpec> {
        Ok(serde_json::from_slice(&fs::read(self.0.join("run.json"))?)?)
    }

    fn order(&self, order: &Order) -> io::Result<()> {
        let mut stream = connect(&self.0)?;
        stream.set_read_timeout(Some(limits::KEEPER_ANSWER))?;
        stream.set_write_timeout(Some(limits::KEEPER_ANSWER))?;
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        stream.take(16).read_to_string(&mut answer)?;
        if answer == "ok" { Ok(()) } else { Err(io::Error::other("the keeper did not understand")) }
    }

    /// Ends what the ranks of a lost run left behind. Returns how many processes that were.
    pub fn sweep(&self) -> usize {
        let mark = format!("{MARK}={}", self.0.display());
        processes::end_marked(mark.as_bytes())
    }

    /// The keeper's own life: from the start of the run until nothing is left of it. The process must be the
    /// keeper's alone.
    ///
    /// # Errors
    /// The folder is not that of a run, or cannot be written.
    pub fn keep(&self) -> io::Result<()> {
        let mut spec = self.spec()?;
        spec.env.insert(MARK.into(), self.0.display().to_string());
        let socket = self.0.join("control.sock");
        let listener = listen(&self.0)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
        let (control, orders) = control();
        let until = Arc::new(AtomicU64::new(spec.until_boot_ms.unwrap_or(u64::MAX)));
        if spec.until_boot_ms.is_some() {
            let (control, until) = (control.clone(), until.clone());
            thread::Builder::new().name("lease".into()).spawn(move || watch(&until, &control))?;
        }
        thread::Builder::new().name("orders".into()).spawn({
            let spec = spec.clone();
            move || take_orders(&listener, &spec, &control, &until)
        })?;
        // The job's folder may be the user's: nothing there may lead this process elsewhere.
        let outcome = as_user(spec.user, || supervise(&spec, orders, None));
        let outcome = outcome.unwrap_or_else(|error| {
            eprintln!("{error}");
            Outcome::NotStarted { why: error.to_string() }
        });
        write_whole(&self.0.join("outcome.json"), &outcome)?;
        fs::remove_file(socket)
    }
}

/// Of a socket whose timeout passed.
fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn take_orders(listener: &UnixListener, spec: &RunSpec, control: &Control, until: &AtomicU64) {
    for stream in listener.incoming().flatten() {
        // Who asks has gone, or said nothing that can be understood: it hears nothing.
        let _ = take_order(stream, spec, control, until);
    }
}

/// Milliseconds since the machine started, those too in which it slept.
pub fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

/// Ends the run when its time is over.
fn watch(until: &AtomicU64, control: &Control) {
    while boot_ms() < until.load(Ordering::Relaxed) {
        thread::sleep(limits::LEASE_LOOK);
    }
    control.expire();
}

fn take_order(
    mut stream: UnixStream,
    spec: &RunSpec,
    control: &Control,
    until: &AtomicU64,
) -> io::Result<()> {
    stream.set_read_timeout(Some(limits::KEEPER_ANSWER))?;
    let mut line = String::new();
    BufReader::new((&stream).take(1_024)).read_line(&mut line)?;
    match serde_json::from_str(&line)? {
        Order::Suspend { grace_ms, bytes_per_s } => {
            control.suspend(MakeRoom { grace: Duration::from_millis(grace_ms), bytes_per_s });
        }
        Order::Stop => control.stop(),
        Order::Renew { until_boot_ms } => drop(until.fetch_max(until_boot_ms, Ordering::Relaxed)),
        Order::Slot { slot } => {
            let slot =
                slot.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            let folder = JobFolder::new(&spec.folder, spec.attempt);
            as_user(spec.user, || folder.put_slot(slot, spec.node_rank))?;
        }
        Order::Look => {}
    }
    stream.write_all(b"ok")
}

/// The path of a socket is short; a folder's may be long. So it is named by way of the open folder.
fn short(folder: &Path) -> io::Result<(fs::File, PathBuf)> {
    use std::os::fd::AsRawFd;
    let open = fs::File::open(folder)?;
    let path = format!("/proc/self/fd/{}/control.sock", open.as_raw_fd());
    Ok((open, path.into()))
}

fn connect(folder: &Path) -> io::Result<UnixStream> {
    let (_open, path) = short(folder)?;
    UnixStream::connect(path)
}

fn listen(folder: &Path) -> io::Result<UnixListener> {
    let (_open, path) = short(folder)?;
    UnixListener::bind(path)
}

/// The file is there as a whole or not at all, also after a loss of power.
fn write_whole(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = fs::File::create(&draft)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let folder = path.parent().ok_or_else(|| io::Error::other("a file has a folder"))?;
    fs::File::open(folder)?.sync_all()
}
