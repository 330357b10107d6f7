//! The runs that are here: found in their folders, started, asked, ended, forgotten. All of it may wait for a disk or
//! a keeper, so it is called where waiting holds nobody up.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use ff2_daemon::config::RanksConfig;
use ff2_proto::pb::{RunOrder, RunPhase, RunReport};
use ff2_sched_machine::Action;
use ff2_task::{
    CheckpointSlot, MakeRoom, Outcome, User,
    keeper::{Run, State},
};

use crate::{
    confine::Confiner,
    limits,
    spec::{Here, run_spec},
    status_line::StatusLine,
};

type Attempt = (u64, u32);

#[derive(Debug)]
pub(crate) struct Runs {
    folder: PathBuf,
    jobs_dir: PathBuf,
    node: String,
    ranks: RanksConfig,
    /// Indexes of all GPUs.
    gpus: Vec<u32>,
    confiner: Confiner,
    here: BTreeMap<Attempt, Known>,
}

/// One of them.
#[derive(Clone, Debug)]
struct Known {
    run: Run,
    gpus: Vec<u32>,
    phase: RunPhase,
    note: String,
    looked: Instant,
    /// What it was told last: it is told each thing once.
    told: &'static str,
    slot: String,
    /// Where it says something of itself, if it does that here.
    says: Option<StatusLine>,
}

impl Runs {
    /// Finds what an earlier process left.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub(crate) fn open(
        folder: PathBuf,
        jobs_dir: PathBuf,
        node: String,
        ranks: RanksConfig,
        gpus: Vec<u32>,
        confiner: Confiner,
    ) -> io::Result<Self> {
        // Users' ranks are told the path of theirs, and may not enter it.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let here = BTreeMap::new();
        let mut runs = Self { folder, jobs_dir, node, ranks, gpus, confiner, here };
        for entry in fs::read_dir(&runs.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(attempt) = name.to_str().and_then(parse) else { continue };
            let run = Run::at(entry.path());
            // One that was not begun has no GPUs, and is lost.
            let spec = run.spec().ok();
            let says = spec.as_ref().and_then(StatusLine::of);
            let gpus = spec.map(|spec| spec.gpus).unwrap_or_default();
            let found = Known {
                run,
                gpus,
                phase: RunPhase::RunRunning,
                note: String::new(),
                looked: Instant::now(),
                told: "",
                slot: String::new(),
                says,
            };
            runs.here.insert(attempt, found);
        }
        for run in runs.here.values_mut() {
            run.look(&runs.confiner);
        }
        Ok(runs)
    }

    /// Looks at those that may have ended. Returns whether any has.
    pub(crate) fn look(&mut self) -> bool {
        let live = self.here.values_mut().filter(|run| run.is_live());
        let mut any = false;
        for run in live {
            if run.may_have_ended() {
                run.look(&self.confiner);
                any |= !run.is_live();
            }
        }
        any
    }

    pub(crate) fn are_live(&self) -> bool {
        self.here.values().any(Known::is_live)
    }

    pub(crate) fn reports(&self) -> Vec<RunReport> {
        let report = |(&(job, attempt), run): (&Attempt, &Known)| RunReport {
            job,
            attempt,
            phase: run.phase.into(),
            note: run.told_of_it(),
            gpus: run.gpus.clone(),
        };
        self.here.iter().map(report).collect()
    }

    /// Lets all go on until then. A keeper that cannot be told ends its run by itself.
    pub(crate) fn renew(&mut self, until_boot_ms: u64) {
        for run in self.here.values_mut().filter(|run| run.is_live()) {
            if let Err(error) = run.run.renew(until_boot_ms) {
                tracing::warn!(folder = %run.run.folder().display(), %error, "a run was not renewed");
                run.look(&self.confiner);
            }
        }
    }

    pub(crate) fn carry_out(&mut self, actions: Vec<Action<'_>>, until_boot_ms: u64) {
        for action in actions {
            match action {
                Action::End { job, attempt } => {
                    self.tell((job, attempt), "ending", |run| run.stop());
                }
                Action::Suspend { job, attempt, grace_ms, slot } => {
                    let slot: Option<CheckpointSlot> = slot.parse().ok();
                    let bytes_per_s = slot.map(|slot| slot.bytes_per_s);
                    let room = MakeRoom { grace: Duration::from_millis(grace_ms), bytes_per_s };
                    self.tell((job, attempt), "asking to make room", |run| run.suspend(room));
                }
                Action::Slot { job, attempt, slot } => self.tell_slot((job, attempt), slot),
                Action::Forget { job, attempt } => self.forget((job, attempt)),
                Action::Start(order) => self.start(order, until_boot_ms),
            }
        }
    }

    fn tell(
        &mut self,
        attempt: Attempt,
        what: &'static str,
        tell: impl Fn(&Run) -> io::Result<()>,
    ) {
        let Some(run) = self.here.get_mut(&attempt).filter(|run| run.told != what) else { return };
        tracing::info!(job = attempt.0, attempt = attempt.1, what);
        match tell(&run.run) {
            Ok(()) => run.told = what,
            Err(_) => run.look(&self.confiner),
        }
    }

    /// A job that cannot be told saves when it likes.
    fn tell_slot(&mut self, attempt: Attempt, slot: &str) {
        let Some(run) = self.here.get_mut(&attempt).filter(|run| run.slot != slot) else { return };
        let Ok(parsed) = slot.parse() else { return };
        match run.run.slot(parsed) {
            Ok(()) => slot.clone_into(&mut run.slot),
            Err(error) => tracing::warn!(job = attempt.0, %error, "a job was not told its slot"),
        }
    }

    fn forget(&mut self, attempt: Attempt) {
        let Some(run) = self.here.get(&attempt) else { return };
        let folder = run.run.folder();
        self.confiner.remove(&name_of(attempt));
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %folder.display(), %error, "a run cannot be forgotten yet");
            }
            _ => drop(self.here.remove(&attempt)),
        }
    }

    fn start(&mut self, order: &RunOrder, until_boot_ms: u64) {
        let attempt = (order.job, order.attempt);
        let used: BTreeSet<u32> = self
            .here
            .values()
            .filter(|run| run.is_live())
            .flat_map(|run| run.gpus.clone())
            .collect();
        let free = self.gpus.iter().copied().filter(|gpu| !used.contains(gpu));
        let wanted = (order.gpus * order.tasks) as usize;
        let gpus: Vec<u32> = free.take(wanted).collect();
        if gpus.len() < wanted {
            // Somebody ends here just now: with the next answer there will be room.
            tracing::info!(job = order.job, wanted, free = gpus.len(), "waits for GPUs");
            return;
        }
        let run = Run::at(self.folder.join(name_of(attempt)));
        let mut started = Known {
            run,
            gpus: gpus.clone(),
            phase: RunPhase::RunRunning,
            note: String::new(),
            looked: Instant::now(),
            told: "",
            slot: String::new(),
            says: None,
        };
        match self.try_start(order, &started.run, gpus, until_boot_ms) {
            Ok(says) => {
                started.says = says;
                tracing::info!(job = order.job, attempt = order.attempt, "started");
            }
            Err(error) => {
                tracing::warn!(job = order.job, attempt = order.attempt, %error, "cannot be started");
                started.phase = RunPhase::RunFailed;
                started.note = short(&format!("cannot be started: {error}"));
            }
        }
        self.here.insert(attempt, started);
    }

    fn try_start(
        &self,
        order: &RunOrder,
        run: &Run,
        gpus: Vec<u32>,
        until_boot_ms: u64,
    ) -> io::Result<Option<StatusLine>> {
        let own = rustix::process::geteuid();
        let here = Here {
            name: &self.node,
            jobs_dir: &self.jobs_dir,
            ranks: &self.ranks,
            gpus,
            until_boot_ms,
            is_root: own.is_root(),
            own_uid: own.as_raw(),
        };
        let spec = run_spec(order, here)?;
        make_job_folder(&spec.folder, spec.user)?;
        let mut keeper = Command::new(std::env::current_exe()?);
        // Nothing of the agent's environment is the job's business.
        let name = name_of((order.job, order.attempt));
        self.confiner.confine(&name, order, &spec.gpus, &mut keeper)?;
        keeper.arg("--keep").arg(run.folder()).env_clear().env("PATH", PATH).current_dir("/");
        run.start(&spec, &mut keeper)?;
        Ok(StatusLine::of(&spec))
    }
}

/// Of a job that says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The job's own folder. The folder above is root's, so nobody puts anything else in its place.
fn make_job_folder(path: &Path, user: Option<User>) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o750).create(path) {
        Ok(()) => match user {
            Some(user) => chown(path, Some(user.uid), Some(user.gid)),
            None => Ok(()),
        },
        // By another node, or an earlier attempt.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => {
            Err(io::Error::new(error.kind(), format!("make {}: {error}", path.display())))
        }
    }
}

/// Of its folder and its control group.
fn name_of((job, attempt): Attempt) -> String {
    format!("{job}-{attempt}")
}

fn parse(name: &str) -> Option<Attempt> {
    let (job, attempt) = name.split_once('-')?;
    Some((job.parse().ok()?, attempt.parse().ok()?))
}

fn short(note: &str) -> String {
    note.chars().take(limits::NOTE_BYTES_MAX).collect()
}

impl Known {
    fn is_live(&self) -> bool {
        self.phase == RunPhase::RunRunning
    }

    /// How it ended, or while it runs what it says of itself.
    fn told_of_it(&self) -> String {
        match &self.says {
            Some(says) if self.is_live() => says.read(),
            _ => self.note.clone(),
        }
    }

    /// Cheap, but for once in a while.
    fn may_have_ended(&self) -> bool {
        self.looked.elapsed() >= limits::KEEPER_LOOK
            || self.run.folder().join("outcome.json").exists()
    }

    fn look(&mut self, confiner: &Confiner) {
        self.looked = Instant::now();
        let state = match self.run.state() {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(folder = %self.run.folder().display(), %error, "a run cannot be read");
                State::Lost
            }
        };
        let (phase, note) = match state {
            State::Running => return,
            State::Ended(outcome) => ended(&outcome),
            State::Lost => {
                let name = self.run.folder().file_name().and_then(|name| name.to_str());
                let name = name.unwrap_or_default();
                confiner.end(name);
                let left = self.run.sweep();
                if confiner.ran_out_of_memory(name) {
                    (RunPhase::RunFailed, "it used more memory than it asked for".into())
                } else {
                    let note = format!("its keeper died; {left} processes were left and ended");
                    (RunPhase::RunLost, note)
                }
            }
        };
        tracing::info!(folder = %self.run.folder().display(), ?phase, note, "ended");
        (self.phase, self.note) = (phase, short(&note));
    }
}

fn ended(outcome: &Outcome) -> (RunPhase, String) {
    match outcome {
        Outcome::Finished => (RunPhase::RunSucceeded, String::new()),
        Outcome::Failed { rank, how } => (RunPhase::RunFailed, format!("rank {rank} {how}")),
        Outcome::Suspended { .. } => (RunPhase::RunStopped, "it made room".into()),
        Outcome::Stopped => (RunPhase::RunStopped, "it was ended".into()),
        Outcome::Expired => {
            (RunPhase::RunLost, "no scheduler said in time that it may go on".into())
        }
        Outcome::NotStarted { why } => (RunPhase::RunFailed, why.clone()),
    }
}
