//! The `main` of every daemon.

use std::{future::Future, io, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{net::TcpListener, runtime::Builder};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::{self, Admin},
    config::{DaemonConfig, Problems},
    fault,
    inflight::InFlight,
    limits,
    log::init_tracing,
    metrics::Metrics,
    operations::Operations,
    pidfile::PidFile,
    shutdown::{drain, stop_signals},
};

/// What a daemon gets to work with.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub metrics: Arc<Metrics>,
    pub inflight: InFlight,
    pub operations: Operations,
    pub admin: Admin,
    /// Cancelled when the daemon shall stop; whoever finds that it cannot go on cancels it too.
    pub stop: CancellationToken,
    /// Tasks that the end of the process waits for, a bounded time.
    pub tasks: TaskTracker,
}

/// Runs a daemon to its end. `daemon` serves until `Runtime::stop` is cancelled, then cleans up and
/// returns; it has [`limits::DRAIN`] for that.
///
/// The data folder is locked and the admin socket answers (not ready) before `daemon` is called.
pub fn run<C, F, Fut>(name: &'static str, version: &'static str, config: C, daemon: F) -> ExitCode
where
    C: DaemonConfig,
    F: FnOnce(Arc<C>, Runtime) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let outcome = start(name, version, config, daemon);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Logging may not have started; whoever started this process must see it in any case.
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start<C, F, Fut>(name: &'static str, version: &'static str, config: C, daemon: F) -> Result<()>
where
    C: DaemonConfig,
    F: FnOnce(Arc<C>, Runtime) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let mut problems = Problems::default();
    config.validate(&mut problems);
    anyhow::ensure!(problems.is_empty(), "the configuration cannot be used:\n{problems}");
    init_tracing(config.log())?;
    end_at_panics();
    raise_file_limit();
    let faults = fault::arm_from_env()?;
    if faults > 0 {
        tracing::warn!(faults, "fault points are armed: this process will fail on purpose");
    }
    let _lock = PidFile::lock(config.data_dir())?;
    let tokio = runtime(name, config.threads()).context("start the threads")?;
    let outcome = tokio.block_on(Box::pin(serve(name, version, Arc::new(config), daemon)));
    // Blocking calls that still run (a slow disk) do not keep a stopped daemon alive.
    tokio.shutdown_timeout(limits::TASKS);
    tracing::info!(clean = outcome.is_ok(), "stopped");
    outcome
}

/// One thread is this one, and shares nothing with others; 0: as many as there are cores.
fn runtime(name: &str, threads: usize) -> io::Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        0 => Builder::new_multi_thread(),
        1 => Builder::new_current_thread(),
        some => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(some);
            builder
        }
    };
    if threads == 1 {
        ff2_fabric::pace::keep();
    }
    ff2_fabric::pace::runtime(builder.enable_all().thread_name(name))
}

/// To what the administrator allows: connections and the files of an index are many, and the limit
/// that a shell inherits is made for other programs.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays at {:?}", limit.current);
    }
}

async fn serve<C, F, Fut>(
    name: &'static str,
    version: &'static str,
    config: Arc<C>,
    daemon: F,
) -> Result<()>
where
    C: DaemonConfig,
    F: FnOnce(Arc<C>, Runtime) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let metrics = Arc::new(Metrics::new(name, version));
    let inflight = InFlight::default();
    let shown = serde_json::to_value(&*config).context("print the configuration")?;
    let admin = Admin::new(name, version, shown, metrics.clone(), inflight.clone());
    let operations = Operations::new(&metrics, inflight.clone());
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let runtime = Runtime { metrics, inflight, operations, admin, stop, tasks };

    stop_signals(runtime.stop.clone()).context("watch for signals")?;
    // The endpoints outlive the daemon's own function: a slow stop can be asked what it waits for.
    let endpoints = CancellationToken::new();
    let _close = endpoints.clone().drop_guard();
    endpoints_of(&*config, &runtime, &endpoints).await?;
    tracing::info!(version, data_dir = %config.data_dir().display(), "started");

    let mut work = Box::pin(daemon(config, runtime.clone()));
    let outcome = tokio::select! {
        outcome = &mut work => outcome,
        () = stopped_too_long(&runtime.stop) => {
            Err(anyhow::anyhow!("the stop took longer than {:?}; see the log", limits::DRAIN))
        }
    };
    runtime.admin.set_ready(false);
    runtime.stop.cancel();
    drain(&runtime.tasks, limits::TASKS).await;
    outcome
}

async fn endpoints_of(
    config: &impl DaemonConfig,
    runtime: &Runtime,
    stop: &CancellationToken,
) -> Result<()> {
    let socket = admin::serve_socket(config.data_dir(), runtime.admin.clone(), stop.clone())
        .with_context(|| format!("bind the admin socket in {}", config.data_dir().display()))?;
    tokio::spawn(report(socket));
    if let Some(address) = config.http_listen() {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("listen on http_listen {address}; is another process using the port?")
        })?;
        tokio::spawn(report(admin::serve_tcp(listener, runtime.admin.clone(), stop.clone())));
    }
    Ok(())
}

async fn report(endpoint: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = endpoint.await {
        tracing::error!(%error, "an admin endpoint ended");
    }
}

async fn stopped_too_long(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(limits::DRAIN).await;
}

/// A panic is a bug and ends the process, on whatever thread and in whatever task it happened: others
/// replace a process that stopped, nobody one that is wrong. Its place goes to the log like everything
/// else.
fn end_at_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(%panic, "panicked");
        before(panic);
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests;
