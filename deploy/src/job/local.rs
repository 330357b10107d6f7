//! One job, attempt after attempt, in this process's care.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ff2_submit::JobRequest;
use ff2_task::{
    Control, JobFolder, MakeRoom, Notice, Outcome, RunSpec, control, limits, supervise,
    supervise::Suspension,
};
use serde_json::json;

use super::lines;
use crate::{output::Output, stop::Stop};

const LOOK: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Here, and not on a cluster.
    #[arg(long)]
    local: bool,
    /// How many processes of it run.
    #[arg(long, default_value_t = 1, value_name = "N")]
    ranks: u32,
    /// GPUs of each rank, on a cluster.
    #[arg(long, default_value_t = 0, value_name = "N", conflicts_with = "local")]
    gpus_per_rank: u32,
    /// [default: that of the program]
    #[arg(long)]
    name: Option<String>,
    /// Ask it to make room after so many seconds, and start it again.
    #[arg(long, value_name = "SECONDS", requires = "local")]
    suspend_after: Option<f64>,
    /// How many times.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "suspend_after")]
    suspends: u32,
    /// Seconds that it may take to make room.
    #[arg(long, value_name = "SECONDS", default_value_t = limits::GRACE.as_secs())]
    grace: u64,
    /// Send this signal too when it is to make room: TERM, INT, HUP, USR1, USR2 or CONT.
    #[arg(long, value_name = "NAME")]
    signal: Option<Notice>,
    /// Keep its state, checkpoints and logs here, and go on with what is there [default: a temporary folder]
    #[arg(long, value_name = "DIR", requires = "local")]
    folder: Option<PathBuf>,
    /// The program and its arguments, after `--`.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Args {
    pub(super) fn is_local(&self) -> bool {
        self.local
    }

    /// The same for a cluster.
    pub(super) fn request(&self) -> Result<JobRequest> {
        let mut words = vec![format!("--ntasks={}", self.ranks), format!("--grace={}", self.grace)];
        if self.gpus_per_rank > 0 {
            words.push(format!("--gpus-per-task={}", self.gpus_per_rank));
        }
        if let Some(name) = &self.name {
            words.push(format!("--job-name={name}"));
        }
        words.extend(self.signal.map(|signal| format!("--signal={}", signal.name())));
        words.push("--".into());
        words.extend(self.command.iter().cloned());
        Ok(super::submit::read(&words)?.0)
    }
}

pub(super) fn run(output: Output, args: &Args) -> Result<()> {
    let stop = Stop::on_signals()?;
    let scratch = tempfile::TempDir::with_prefix("ff2-job-").context("make a temporary folder")?;
    let folder = args.folder.clone().unwrap_or_else(|| scratch.path().to_owned());
    let folder = std::path::absolute(folder)?;
    let mut spec = spec(args, &folder)?;
    spec.check()?;
    let say = |text: String| {
        if !output.is_json() {
            eprintln!("{text}");
        }
    };
    let echo = (!output.is_json()).then(|| lines::shown(args.ranks == 1));
    let mut attempts = Vec::new();
    let last = loop {
        let suspend_after = args.suspend_after.filter(|_| spec.attempt <= args.suspends);
        let began = Instant::now();
        let outcome = attempt(&spec, suspend_after, &stop, echo.clone(), &say)?;
        attempts.push(json!({
            "attempt": spec.attempt,
            "seconds": (began.elapsed().as_secs_f64() * 1e3).round() / 1e3,
            "end": outcome,
        }));
        let Outcome::Suspended { how, after_ms } = outcome else { break outcome };
        say(made_room(how, after_ms));
        if stop.reason().is_some() {
            break Outcome::Stopped;
        }
        spec.attempt += 1;
        say(format!("ff2ctl: starting it again (attempt {})", spec.attempt));
    };
    let state = JobFolder::new(&spec.folder, spec.attempt).state_word().unwrap_or_default();
    if output.is_json() {
        let value = json!({ "name": spec.name, "attempts": attempts, "state": state });
        output.print(&value, String::new)?;
    }
    match last {
        Outcome::Failed { rank, how } => bail!("rank {rank} {how}"),
        Outcome::NotStarted { why } => bail!("{why}"),
        Outcome::Stopped | Outcome::Expired => bail!("interrupted"),
        Outcome::Finished | Outcome::Suspended { .. } => Ok(()),
    }
}

fn spec(args: &Args, folder: &Path) -> Result<RunSpec> {
    let program = Path::new(&args.command[0]);
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned());
    // A port that is free now is most likely free in a moment.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(RunSpec {
        job: 1,
        name: args.name.clone().or(name).unwrap_or_default(),
        attempt: 1,
        command: args.command.clone(),
        work_dir: std::env::current_dir().context("where this is")?,
        env: BTreeMap::new(),
        ranks: args.ranks,
        first_rank: 0,
        world_size: args.ranks,
        node_rank: 0,
        nodes: 1,
        master_addr: "127.0.0.1".into(),
        master_port: port.context("find a free port")?.port(),
        gpus: Vec::new(),
        folder: folder.to_owned(),
        checkpoint: folder.join("checkpoint"),
        signal: args.signal,
        grace_s: args.grace,
        user: None,
        script: None,
        output: None,
        errors: None,
        until_boot_ms: None,
    })
}

/// One attempt; somebody else's Ctrl-C ends it.
fn attempt(
    spec: &RunSpec,
    suspend_after: Option<f64>,
    stop: &Stop,
    echo: Option<ff2_task::Echo>,
    say: &(impl Fn(String) + Sync),
) -> Result<Outcome> {
    let (control, orders) = control();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| orders_of(spec, suspend_after, stop, &control, &is_over, say));
        let outcome = supervise(spec, orders, echo);
        is_over.store(true, Ordering::Relaxed);
        outcome.map_err(|error| hint(spec, error))
    })
}

fn orders_of(
    spec: &RunSpec,
    suspend_after: Option<f64>,
    stop: &Stop,
    control: &Control,
    is_over: &AtomicBool,
    say: &impl Fn(String),
) {
    let began = Instant::now();
    let mut suspend_at = suspend_after;
    while !is_over.load(Ordering::Relaxed) {
        if stop.reason().is_some() {
            return control.stop();
        }
        if suspend_at.is_some_and(|at| began.elapsed().as_secs_f64() >= at) {
            suspend_at = None;
            say(format!("ff2ctl: asking it to make room within {} s", spec.grace_s));
            control.suspend(MakeRoom::within(Duration::from_secs(spec.grace_s)));
        }
        thread::sleep(LOOK);
    }
}

fn made_room(how: Suspension, after_ms: u64) -> String {
    match how {
        Suspension::Acknowledged => {
            format!("ff2ctl: it said after {after_ms} ms that all is saved")
        }
        Suspension::Ended => format!("ff2ctl: it ended by itself after {after_ms} ms"),
        Suspension::Forced => format!(
            "ff2ctl: it did not make room: ended after {after_ms} ms; what it did since its last checkpoint is lost"
        ),
    }
}

/// What to do about a program that does not start.
fn hint(spec: &RunSpec, error: std::io::Error) -> anyhow::Error {
    let program = &spec.command[0];
    match error.kind() {
        std::io::ErrorKind::PermissionDenied if Path::new(program).is_file() => anyhow::anyhow!(
            "{error}: make it executable (chmod +x {program}), or name what runs it (-- bash {program})"
        ),
        std::io::ErrorKind::NotFound if Path::new(program).is_file() => {
            anyhow::anyhow!("{error}: say ./{program} for a program of this folder")
        }
        _ => error.into(),
    }
}
