//! `ff2-serve run`: from a folder to a server that answers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread,
};

use anyhow::{Context, Result};
use clap::Args;
use ff2_engine::{DiskOptions, EngineOptions};
use ff2_server::{
    guard::{accounts::Accounts, keys::Keys, watch},
    http::{self, App},
    load,
    metrics::ServerMetrics,
    net::serve::{Connections, serve},
    route::folder::ServiceFolder,
    service::{Service, ServiceOptions},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{self, Access, Bounds},
    log, replica,
    route::here,
    told::Told,
};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Folder of the model: config.json, *.safetensors, tokenizer.json, tokenizer_config.json
    model: PathBuf,
    /// Address and port; port 0 takes any that is free and prints it [default: 127.0.0.1:8000; of a replica any port
    /// where its node is reached]
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Serve the router of this service alone, with the keys and the certificate of its folder
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["open", "tls_certificate"])]
    replica_of: Option<PathBuf>,
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

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    log();
    let ways = Ways::of(&arguments)?;
    let folder = arguments.model.clone();
    let name = || folder.canonicalize().ok()?.file_name()?.to_str().map(str::to_owned);
    let names = match arguments.names.is_empty() {
        true => vec![name().unwrap_or_else(|| "model".to_owned())],
        false => arguments.names.clone(),
    };
    let model = Arc::new(load::model(&folder)?);
    let options = arguments.engine.options();
    let context = arguments.engine.context.map(NonZeroUsize::get);
    let tells_use = arguments.replica_of.is_some();
    let options = ServiceOptions { names, context, tells_use, engine: options };
    let service = Service::open(&folder, model, options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve_until_told(Arc::new(service), ways, arguments))
}

/// What keeps keys in step with their file, if anything does.
type Following = Option<JoinHandle<Result<()>>>;

/// Where it is reached, and by whom.
struct Ways {
    listen: SocketAddr,
    /// None: no keys are asked for.
    keys: Option<PathBuf>,
    tls: Option<(PathBuf, PathBuf)>,
    /// Of the service that this is a replica of.
    of: Option<ServiceFolder>,
}

impl Ways {
    fn of(arguments: &Arguments) -> Result<Self> {
        if let Some(path) = &arguments.replica_of {
            let listen = match arguments.listen {
                Some(listen) => listen,
                None => SocketAddr::new(here()?, 0),
            };
            let of = replica::join(path)?;
            let (keys, tls) = (Some(of.inside_keys()), Some(of.inside_tls()));
            return Ok(Self { listen, keys, tls, of: Some(of) });
        }
        let access = &arguments.access;
        let listen = arguments.listen.unwrap_or_else(|| ([127, 0, 0, 1], 8000).into());
        access.check(listen)?;
        let keys = access.keys(|| access.keys.path())?;
        let tls = access.tls().map(|(certificate, key)| (certificate.into(), key.into()));
        Ok(Self { listen, keys, tls, of: None })
    }

    /// Whose keys are taken, and what follows the file: that of a service does not change, and nobody counts what its
    /// router used.
    fn accounts(&self, stop: &CancellationToken) -> Result<(Option<Arc<Accounts>>, Following)> {
        let Some(path) = &self.keys else { return Ok((None, None)) };
        let accounts = Arc::new(Accounts::default());
        if self.of.is_some() {
            accounts.load(&Keys::read(path)?.unwrap_or_default(), &BTreeMap::new());
            return Ok((Some(accounts), None));
        }
        let watched = watch::start(accounts.clone(), path.clone(), || true, stop.clone())?;
        Ok((Some(accounts), Some(watched)))
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

async fn serve_until_told(service: Arc<Service>, ways: Ways, arguments: Arguments) -> Result<()> {
    let stop = CancellationToken::new();
    let (accounts, watched) = ways.accounts(&stop)?;
    let connections = Arc::new(Connections::default());
    let engine = service.engine.clone();
    let metrics = ServerMetrics::new(
        &service.names[0],
        engine.clone(),
        &service.metrics,
        connections.clone(),
    );
    let bounds = arguments.bounds;
    let name = service.names[0].clone();
    let app = App::new(service, accounts, Arc::new(metrics));
    let app = Arc::new(App { body: bounds.body(), ..app });
    let tls = ways.tls.as_ref().map(|(certificate, key)| (&**certificate, &**key));
    let (tls, scheme) = access::acceptor(tls)?;
    let listen = ways.listen;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    let address = listener.local_addr()?;
    eprintln!("{name} is served at {scheme}://{address}");
    let leaving = CancellationToken::new();
    let announced = match ways.of {
        None => None,
        Some(folder) => {
            let entry = replica::entry(address)?;
            Some(tokio::spawn(replica::stay_announced(folder.replicas(), entry, leaving.clone())))
        }
    };
    let told = async {
        let told = Told::wait().await?;
        // Health turns at once, so that whoever routes requests here stops; what runs goes on.
        app.stopping.store(true, Ordering::Relaxed);
        leaving.cancel();
        if tokio::time::timeout(bounds.drain(), engine.drain()).await.is_err() {
            tracing::warn!("requests in work are cut: the time to drain is over");
        }
        stop.cancel();
        anyhow::Ok(told)
    };
    let served =
        serve(listener, http::router(app.clone()), bounds.serve(1), tls, connections, stop.clone());
    let (told, ()) = tokio::join!(told, served);
    if let Some(announced) = announced {
        announced.await.context("leave the service")?;
    }
    if let Some(watched) = watched {
        watched.await.context("keep what keys used")??;
    }
    // Answers are on their way to their readers: nothing is lost if this process is ended now.
    told?.acknowledge()
}
