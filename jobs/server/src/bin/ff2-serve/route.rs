//! `ff2-serve route`: one address before the replicas of a service.

use std::{
    env,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU32, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use ff2_server::{
    guard::{accounts::Accounts, gate::Gate, watch},
    net::serve::{Connections, ServeOptions, serve},
    route::{
        figures::Figures,
        fleet::FleetOptions,
        folder::ServiceFolder,
        http::{self, Route},
        orders,
        replicas::Replicas,
        report,
        upstream::Upstream,
        watch as replicas_watch,
    },
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::{self, Access, Bounds},
    log,
    told::Told,
};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Folder of the service, shared with its replicas; made where there is none
    folder: PathBuf,
    /// Address and port; port 0 takes any that is free and prints it [default: in a job where its node is reached,
    /// else 127.0.0.1, port 8000]
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Port, where --listen is not given
    #[arg(long, default_value = "8000", conflicts_with = "listen")]
    port: u16,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    bounds: Bounds,
    /// Requests must wait for so long before there is one replica more
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    scale_up_seconds: NonZeroU32,
    /// One replica less must be enough for so long before there is
    #[arg(long, value_name = "SECONDS", default_value = "120")]
    scale_down_seconds: NonZeroU32,
}

/// # Errors
/// What keeps it from starting: the folder, the keys, the address.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    log();
    let listen = match arguments.listen {
        Some(listen) => listen,
        None => SocketAddr::new(here()?, arguments.port),
    };
    arguments.access.check(listen)?;
    let folder = ServiceFolder::open(&arguments.folder)?;
    // A service has keys of its own, unless somebody says otherwise.
    let of_service = folder.keys();
    let keys = arguments.access.keys(|| Ok(arguments.access.keys.given().unwrap_or(of_service)))?;
    let upstream = Upstream::open(&folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(route_until_told(folder, upstream, keys, listen, arguments))
}

/// Where others reach this node: as a job, what the scheduler says.
pub(crate) fn here() -> Result<IpAddr> {
    let host = env::var("MASTER_ADDR").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let mut found = (host.as_str(), 0).to_socket_addrs().with_context(|| format!("find {host}"))?;
    Ok(found.next().with_context(|| format!("{host} has no address"))?.ip())
}

async fn route_until_told(
    folder: ServiceFolder,
    upstream: Upstream,
    keys: Option<PathBuf>,
    listen: SocketAddr,
    arguments: Arguments,
) -> Result<()> {
    let stop = CancellationToken::new();
    let accounts = keys.is_some().then(|| Arc::new(Accounts::default()));
    let watched = match (&accounts, keys) {
        (Some(accounts), Some(path)) => Some(watch::start(accounts.clone(), path, stop.clone())?),
        _ => None,
    };
    let replicas = Arc::new(Replicas::default());
    let route = Arc::new(Route {
        gate: Gate::new(accounts),
        body: arguments.bounds.body(),
        figures: Figures::new(replicas.clone()),
        replicas,
        upstream,
        stopping: false.into(),
    });
    let (tls, scheme) = access::acceptor(arguments.access.tls())?;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    let url = format!("{scheme}://{}", listener.local_addr()?);
    eprintln!("{} is served at {url}", folder.path().display());
    let options = FleetOptions {
        up: seconds(arguments.scale_up_seconds),
        down: seconds(arguments.scale_down_seconds),
        ..FleetOptions::default()
    };
    let (wanted, tasks) = (Arc::new(AtomicU32::new(0)), TaskTracker::new());
    let with = || (route.clone(), folder.clone());
    let (a, b) = with();
    tasks.spawn(replicas_watch::follow_folder(a, b, stop.clone()));
    let (a, b) = with();
    tasks.spawn(replicas_watch::follow_replicas(a, b, stop.clone()));
    let (a, b) = with();
    tasks.spawn(orders::direct(a, b, options, wanted.clone(), stop.clone()));
    let (a, b) = with();
    tasks.spawn(report::tell(a, b, url, wanted, stop.clone()));
    tasks.close();
    // What is under way may take as long as it is given; then connections are cut.
    // A request has a connection to its replica too.
    let bounds = arguments.bounds;
    let options = ServeOptions { drain: bounds.drain(), ..bounds.serve(2) };
    let serving = CancellationToken::new();
    let served = serve(
        listener,
        http::router(route.clone()),
        options,
        tls,
        Arc::new(Connections::default()),
        serving.clone(),
    );
    let told = async {
        let told = Told::wait().await?;
        route.stopping.store(true, Ordering::Relaxed);
        serving.cancel();
        anyhow::Ok(told)
    };
    let (told, ()) = tokio::join!(told, served);
    // Requests under way need what is known of replicas until their end.
    stop.cancel();
    tasks.wait().await;
    if let Some(watched) = watched {
        watched.await.context("keep what keys used")??;
    }
    told?.acknowledge()
}

fn seconds(count: NonZeroU32) -> Duration {
    Duration::from_secs(u64::from(count.get()))
}
