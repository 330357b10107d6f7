//! `ff2-serve route`: an address before the replicas of a service. There may be several, on several nodes.

use std::{
    collections::BTreeMap,
    env, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use clap::Args;
use ff2_server::{
    guard::{accounts::Accounts, gate::Gate, keys::Keys, watch},
    limits,
    net::serve::{Connections, ServeOptions, serve},
    route::{
        figures::Figures,
        fleet::FleetOptions,
        folder::{RouterEntry, ServiceFolder},
        http::{self, Route},
        orders,
        replicas::Replicas,
        report::{self, Rate},
        routers::Routers,
        upstream::Upstream,
        watch as replicas_watch,
    },
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::{self, Access, Bounds},
    log, replica,
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
    let (tls, scheme) = access::acceptor(arguments.access.tls())?;
    let bound = tokio::select! {
        bound = bind(listen, &folder) => bound.with_context(|| format!("listen on {listen}"))?,
        told = Told::wait() => return told?.acknowledge(),
    };
    let url = format!("{scheme}://{}", bound.local_addr()?);
    // Other routers come another way: by the service's own certificate and key, to any port.
    let address = if listen.ip().is_unspecified() { here()? } else { listen.ip() };
    let inside = TcpListener::bind((address, 0)).await.context("listen for other routers")?;
    let (certificate, key) = folder.inside_tls();
    let (inside_tls, _) = access::acceptor(Some((&certificate, &key)))?;
    let since_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let own = RouterEntry {
        id: replica::id()?,
        since_ms: u64::try_from(since_ms).unwrap_or(u64::MAX),
        inside: inside.local_addr()?,
        url: url.clone(),
    };
    let of_service = Accounts::default();
    of_service.load(&Keys::read(&folder.inside_keys())?.unwrap_or_default(), &BTreeMap::new());
    let accounts = keys.is_some().then(|| Arc::new(Accounts::default()));
    let replicas = Arc::new(Replicas::default());
    let route = Arc::new(Route {
        gate: Gate::new(accounts.clone()),
        inside: Gate::new(Some(Arc::new(of_service))),
        body: arguments.bounds.body(),
        figures: Figures::new(replicas.clone()),
        replicas,
        upstream,
        routers: Routers::new(own.clone()),
        rate: Rate::default(),
        wanted: 0.into(),
        stopping: false.into(),
    });
    let watched = match (accounts, keys) {
        (Some(accounts), Some(path)) => {
            let route = route.clone();
            let counts = move || route.routers.leads();
            Some(watch::start(accounts, path, counts, stop.clone())?)
        }
        _ => None,
    };
    // Known before the first request: who leads.
    route.routers.set(folder.routers().entries()?, Instant::now());
    eprintln!("{} is served at {url}", folder.path().display());
    let options = FleetOptions {
        up: seconds(arguments.scale_up_seconds),
        down: seconds(arguments.scale_down_seconds),
        ..FleetOptions::default()
    };
    let tasks = TaskTracker::new();
    let with = || (route.clone(), folder.clone(), stop.clone());
    let (a, b, c) = with();
    tasks.spawn(replicas_watch::follow_folder(a, b, c));
    let (a, b, c) = with();
    tasks.spawn(replicas_watch::follow_replicas(a, b, c));
    let (a, b, c) = with();
    tasks.spawn(replicas_watch::follow_routers(a, b, c));
    let (a, b, c) = with();
    tasks.spawn(orders::direct(a, b, options, c));
    let (a, b, c) = with();
    tasks.spawn(report::tell(a, b, c));
    let leaving = CancellationToken::new();
    tasks.spawn(replica::stay_announced(folder.routers(), own, leaving.clone()));
    tasks.close();
    // What is under way may take as long as it is given; then connections are cut.
    // A request has a connection to its replica, or to the router that leads, too. One that comes from another router
    // stands for one that does not come from a client here.
    let bounds = arguments.bounds;
    let options = ServeOptions { drain: bounds.drain(), ..bounds.serve(2) };
    let of_routers = ServeOptions { per_address: options.connections, ..options.clone() };
    let serving = CancellationToken::new();
    let served = serve(
        bound,
        http::router(route.clone()),
        options,
        tls,
        Arc::new(Connections::default()),
        serving.clone(),
    );
    let served_inside = serve(
        inside,
        http::inside(route.clone()),
        of_routers,
        inside_tls,
        Arc::new(Connections::default()),
        serving.clone(),
    );
    let told = async {
        let told = Told::wait().await?;
        route.stopping.store(true, Ordering::Relaxed);
        leaving.cancel();
        serving.cancel();
        anyhow::Ok(told)
    };
    let (told, (), ()) = tokio::join!(told, served, served_inside);
    // Requests under way need what is known of replicas until their end.
    stop.cancel();
    tasks.wait().await;
    if let Some(watched) = watched {
        watched.await.context("keep what keys used")??;
    }
    told?.acknowledge()
}

/// An address that another router of this service has is left to it until it goes, as on a node with two of them.
async fn bind(listen: SocketAddr, folder: &ServiceFolder) -> io::Result<TcpListener> {
    // One that starts at the same moment may not have said yet that it is there.
    let (mut is_told, begun) = (false, Instant::now());
    loop {
        let error = match TcpListener::bind(listen).await {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        let of_service = || {
            let entries = folder.routers().entries().unwrap_or_default();
            entries.iter().any(|entry| entry.url.ends_with(&format!("://{listen}")))
        };
        if !is_told && of_service() {
            tracing::info!(%listen, "another router of the service has this address: waits for it");
            is_told = true;
        }
        let may_come = is_told || begun.elapsed() < limits::ADDRESS_PATIENCE;
        if error.kind() != io::ErrorKind::AddrInUse || !may_come {
            return Err(error);
        }
        tokio::time::sleep(limits::ADDRESS_LOOK).await;
    }
}

fn seconds(count: NonZeroU32) -> Duration {
    Duration::from_secs(u64::from(count.get()))
}
