//! `ff2-serve run`: from a folder to a server that answers.

use std::{
    env, fs,
    io::IsTerminal,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use ff2_engine::{DiskOptions, EngineOptions};
use ff2_server::{
    guard::{
        accounts::Accounts,
        keys::{KeyLimits, Keys},
        watch,
    },
    http::{self, App},
    load,
    metrics::ServerMetrics,
    net::{
        serve::{Connections, ServeOptions, serve},
        tls,
    },
    service::{Service, ServiceOptions},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::key::KeysFile;

/// Between two looks whether it is to make room: a grace is seconds.
const SUSPEND_LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Folder of the model: config.json, *.safetensors, tokenizer.json, tokenizer_config.json
    model: PathBuf,
    /// Address and port; port 0 takes any that is free and prints it
    #[arg(long, default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Name of the model in the interface; may be given several times [default: the folder's name]
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    engine: Engine,
    #[command(flatten)]
    bounds: Bounds,
}

/// Who may ask, and how the way to the server is kept.
#[derive(Debug, Args)]
struct Access {
    #[command(flatten)]
    keys: KeysFile,
    /// Ask for no key, whatever --keys says: whoever reaches the port may use the model
    #[arg(long)]
    open: bool,
    /// Certificate for TLS (PEM, with its chain)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Serve beyond this host without keys or without TLS: something before this server sees to that
    #[arg(long)]
    unprotected: bool,
}

#[derive(Debug, Args)]
struct Engine {
    /// Tokens of prompt and answer together [default: what the model was made for]
    #[arg(long, value_name = "TOKENS")]
    context: Option<NonZeroUsize>,
    /// Memory of the KV cache
    #[arg(long, value_name = "MIB", default_value = "1024")]
    kv_mib: NonZeroUsize,
    /// Tokens of a KV block
    #[arg(long, value_name = "TOKENS", default_value = "64")]
    block_tokens: NonZeroUsize,
    /// Choices that are generated at once
    #[arg(long, value_name = "N", default_value = "16")]
    max_running: NonZeroUsize,
    /// Requests that may wait; more are refused with 429
    #[arg(long, value_name = "N", default_value = "256")]
    max_waiting: usize,
    /// Tokens of prompts that one step computes
    #[arg(long, value_name = "TOKENS", default_value = "256")]
    prefill_chunk: NonZeroUsize,
    /// Threads that compute [default: those of the machine]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Folder that keeps computed prefixes over restarts; servers of the same model may share it, on a mount of ff2
    #[arg(long, value_name = "FOLDER")]
    prefix_cache: Option<PathBuf>,
    /// How much that folder may hold
    #[arg(long, value_name = "GIB", default_value = "16", requires = "prefix_cache")]
    prefix_cache_gib: NonZeroU32,
    /// Guess further tokens by the model's own module, while at most N choices are under way; 0: never
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().draft_running_max)]
    draft: usize,
}

#[derive(Debug, Args)]
struct Bounds {
    /// Connections in all
    #[arg(long, value_name = "N", default_value = "1024")]
    connections: NonZeroUsize,
    /// Connections from one address
    #[arg(long, value_name = "N", default_value = "256")]
    connections_per_address: NonZeroUsize,
    /// Size of a request's body
    #[arg(long, value_name = "MIB", default_value = "4")]
    body_mib: NonZeroUsize,
    /// Time for requests in work once the server is told to stop
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    drain_seconds: NonZeroU32,
}

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    log();
    arguments.access.check(arguments.listen)?;
    let folder = arguments.model.clone();
    let name = || folder.canonicalize().ok()?.file_name()?.to_str().map(str::to_owned);
    let names = match arguments.names.is_empty() {
        true => vec![name().unwrap_or_else(|| "model".to_owned())],
        false => arguments.names.clone(),
    };
    let keys = arguments.access.keys()?;
    let model = Arc::new(load::model(&folder)?);
    let options = arguments.engine.options();
    let context = arguments.engine.context.map(NonZeroUsize::get);
    let service =
        Service::open(&folder, model, ServiceOptions { names, context, engine: options })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve_until_told(Arc::new(service), keys, arguments))
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FF2_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

impl Access {
    /// Protection is on unless somebody says that it may be off.
    fn check(&self, listen: SocketAddr) -> Result<()> {
        let is_safe = listen.ip().is_loopback()
            || self.unprotected
            || (!self.open && self.tls_certificate.is_some());
        ensure!(
            is_safe,
            "{listen} is reached from beyond this host: give --tls-certificate and --tls-key and leave out --open, or \
             say --unprotected if a proxy or the network sees to that"
        );
        Ok(())
    }

    /// The keys' file, made with a first key where there is none. None: no keys are asked for.
    fn keys(&self) -> Result<Option<PathBuf>> {
        if self.open {
            return Ok(None);
        }
        let path = self.keys.path()?;
        if Keys::read(&path)?.is_none() {
            let mut keys = Keys::default();
            let text = keys.add("first", KeyLimits::default())?;
            keys.write(&path)?;
            eprintln!(
                "made the first API key, kept hashed in {}; it is not shown again:\n{text}",
                path.display()
            );
        }
        Ok(Some(path))
    }
}

impl Engine {
    fn options(&self) -> EngineOptions {
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        EngineOptions {
            block_tokens: self.block_tokens.get(),
            kv_bytes: self.kv_mib.get() << 20,
            max_running: self.max_running.get(),
            max_waiting: self.max_waiting,
            prefill_chunk: self.prefill_chunk.get(),
            threads: self.threads.map_or(threads, NonZeroUsize::get),
            disk: self.prefix_cache.clone().map(|folder| DiskOptions {
                folder,
                bytes_max: u64::from(self.prefix_cache_gib.get()) << 30,
            }),
            draft_running_max: self.draft,
        }
    }
}

async fn serve_until_told(
    service: Arc<Service>,
    keys: Option<PathBuf>,
    arguments: Arguments,
) -> Result<()> {
    let stop = CancellationToken::new();
    let accounts = keys.is_some().then(|| Arc::new(Accounts::default()));
    let watched = match (&accounts, keys) {
        (Some(accounts), Some(path)) => Some(watch::start(accounts.clone(), path, stop.clone())?),
        _ => None,
    };
    let connections = Arc::new(Connections::default());
    let engine = service.engine.clone();
    let metrics = ServerMetrics::new(
        &service.names[0],
        engine.clone(),
        &service.metrics,
        connections.clone(),
    );
    let Bounds { connections: most, connections_per_address, body_mib, drain_seconds } =
        arguments.bounds;
    let name = service.names[0].clone();
    let app = App::new(service, accounts, Arc::new(metrics));
    let app = Arc::new(App { body_bytes_max: body_mib.get() << 20, ..app });
    let access = &arguments.access;
    let tls = match (&access.tls_certificate, &access.tls_key) {
        (Some(certificate), Some(key)) => Some(tls::acceptor(certificate, key)?),
        _ => None,
    };
    let listen = arguments.listen;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    eprintln!("{name} is served at {scheme}://{}", listener.local_addr()?);
    let options = ServeOptions {
        connections: most.get(),
        per_address: connections_per_address.get(),
        ..ServeOptions::default()
    };
    let drain = Duration::from_secs(u64::from(drain_seconds.get()));
    let told = tokio::spawn(until_told(app.clone(), engine, drain, stop.clone()));
    serve(listener, http::router(app), options, tls, connections, stop).await;
    told.abort();
    if let Some(watched) = watched {
        watched.await.context("keep what keys used")??;
    }
    Ok(())
}

/// Health turns at once, so that whoever routes requests here stops; what runs goes on.
async fn until_told(
    app: Arc<App>,
    engine: ff2_engine::Engine,
    drain: Duration,
    stop: CancellationToken,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let suspended = tokio::select! {
        _ = terminate.recv() => false,
        _ = tokio::signal::ctrl_c() => false,
        () = suspended() => true,
    };
    app.stopping.store(true, Ordering::Relaxed);
    tracing::info!("told to stop: what runs is finished first");
    if tokio::time::timeout(drain, engine.drain()).await.is_err() {
        tracing::warn!("requests in work are cut: the time to drain is over");
    }
    if let Some(path) = env::var_os("FF2_ACK").filter(|_| suspended) {
        fs::write(&path, "").with_context(|| format!("write {}", path.display()))?;
    }
    stop.cancel();
    Ok(())
}

/// As a job, it is asked to make room by a file (docs/JOBS.md).
async fn suspended() {
    let Some(path) = env::var_os("FF2_SUSPEND").map(PathBuf::from) else {
        return std::future::pending().await;
    };
    while !path.exists() {
        tokio::time::sleep(SUSPEND_LOOK).await;
    }
}
