//! The life of a mount: connect, mount, serve, unmount.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result};
use ff2_client::{Client, ClientOptions, ClientTls, InodeId, Invalidations, Rdma, UserToken, pb};
use ff2_daemon::{
    Runtime,
    config::{MountConfig, OverIoUring},
    rdma,
};
use ff2_fuse_kernel::{Executors, IoUring, MountOptions, Options, Unmounter, Way, WriteMemory};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::task::TaskTracker;

use crate::{
    coherence::{self, Coherence},
    files::{Directories, Files},
    guard,
    known::Known,
    limits,
    lock_owners::LockOwners,
    mounted::{Mounted, Traffic},
    requests::Requests,
    rings::{self, Rings},
    tune,
    who::Groups,
};

/// Mounts the volume and serves it until the process is told to stop or somebody unmounts it.
pub async fn serve(config: Arc<MountConfig>, runtime: Runtime) -> Result<()> {
    let mount_point = free_mount_point(&config.mount_point)?;
    let (token, tls) = (config.token()?, config.tls()?);
    let rdma = rdma(&config.network)?;
    let for_all_users = token.claims().root;
    let executors =
        Arc::new(Executors::start("ff2-fuse-kernel", config.threads).context("start the threads")?);
    // What the client does for itself runs where the requests do: then most of them need no other thread.
    let connected = executors.first().spawn(connect(config.clone(), token, tls, rdma)).await;
    let (client, invalidations) = connected
        .context("connect")?
        .with_context(|| format!("connect to the cluster {}", config.cluster_id))?;
    let root = root(&config, &client).await?;
    let at = mounted(&config, &runtime, client, for_all_users, InodeId(root.inode));
    // Known before anybody asks, so that the mount point can be looked at from the first outage on.
    at.last.lock().root = Some(root);

    let mounted = {
        let options = kernel_options(&config, &mount_point, &at);
        let (executors, at) = (executors.clone(), at.clone());
        tokio::task::spawn_blocking(move || start(&executors, options, at)).await?
    }
    .with_context(|| format!("mount at {}", mount_point.display()))?;
    if let Some(invalidations) = invalidations {
        runtime.tasks.spawn(coherence::serve(at.clone(), invalidations));
    }
    if let Err(error) = serve_rings(&at, &mount_point, &executors) {
        tracing::warn!(%error, "no user rings");
    }
    show(&runtime, &at, &config, mounted.way);
    // Kept to the end: its pipe is what the guard waits on.
    let _guard = guard::start(&mount_point)
        .inspect_err(
            |error| tracing::warn!(%error, "no guard: if this process is killed, unmount by hand"),
        )
        .ok();
    if let Err(error) = tune::raise_read_ahead(&mount_point) {
        tracing::info!(%error, "the kernel reads ahead 128 KiB only");
    }
    runtime.admin.set_ready(true);
    let (place, volume, way) = (mount_point.display(), &config.volume, way(mounted.way));
    tracing::info!(mount_point = %place, %volume, %way, "mounted");

    let must_unmount = tokio::select! {
        () = runtime.stop.cancelled() => true,
        () = mounted.ended() => false,
    };
    runtime.admin.set_ready(false);
    if must_unmount {
        unmount(mounted, &mount_point).await;
    } else {
        tracing::info!("unmounted by somebody");
    }
    finish(&at).await;
    Ok(())
}

/// With the invalidations, unless nothing is to be cached.
async fn connect(
    config: Arc<MountConfig>,
    token: UserToken,
    tls: Option<ClientTls>,
    rdma: Option<Arc<Rdma>>,
) -> ff2_client::Result<(Client, Option<Invalidations>)> {
    let options = options(&config, token).encrypted(tls).rdma(rdma);
    if config.cache_ms == 0 {
        return Ok((Client::connect(options).await?, None));
    }
    let (client, invalidations) = Client::connect_coherent(options).await?;
    Ok((client, Some(invalidations)))
}

/// The folder that is mounted.
async fn root(config: &MountConfig, client: &Client) -> Result<pb::Attr> {
    let Some(subdir) = &config.subdir else {
        return client.me().get_attr(client.root()).await.context("look at the root");
    };
    let found = client.stat(subdir).await;
    let found = found.with_context(|| format!("find the folder {subdir} to be mounted"))?;
    anyhow::ensure!(found.kind() == pb::FileKind::Directory, "{subdir} is no folder");
    Ok(found)
}

fn options(config: &MountConfig, token: UserToken) -> ClientOptions {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let description = format!(
        "mount {} on {} (process {})",
        config.mount_point.display(),
        host.trim(),
        std::process::id()
    );
    ClientOptions::new(config.metads.clone(), token, &config.cluster_id)
        .volume(&config.volume)
        .zone(&config.network.zone)
        .description(description)
        .cache(Duration::from_millis(config.cache_ms).min(limits::UNTOLD_CACHE))
        .behind(!config.dirsync)
        .atime(!config.noatime && !config.read_only)
}

fn mounted(
    config: &MountConfig,
    runtime: &Runtime,
    client: Client,
    for_all_users: bool,
    root: InodeId,
) -> Arc<Mounted> {
    let traffic = Traffic {
        read_bytes: runtime.metrics.counter("read_bytes", "Bytes that programs read"),
        written_bytes: runtime.metrics.counter("written_bytes", "Bytes that programs wrote"),
    };
    Arc::new(Mounted {
        client,
        root,
        for_all_users,
        ttl: Duration::from_millis(config.cache_ms),
        is_coherent: config.cache_ms > 0,
        coherence: Coherence::default(),
        files: Files::default(),
        directories: Directories::default(),
        known: Known::new(root.0),
        lock_owners: LockOwners::default(),
        groups: Groups::new(),
        operations: runtime.operations.clone(),
        traffic,
        requests: TaskTracker::new(),
        rings: Rings::default(),
        last: Mutex::default(),
        notifier: OnceLock::new(),
    })
}

fn serve_rings(at: &Arc<Mounted>, mount_point: &Path, executors: &Executors) -> Result<()> {
    let device = tune::device_of(mount_point)?.context("the mount is not listed")?;
    let (major, minor) = device.split_once(':').context("a device has two numbers")?;
    let device = (major.parse()?, minor.parse()?);
    Ok(rings::start(at, device, executors.handles().to_vec())?)
}

/// What the admin socket shows of the mount.
fn show(runtime: &Runtime, at: &Arc<Mounted>, config: &MountConfig, by: Way) {
    let (at, place) = (at.clone(), config.mount_point.display().to_string());
    runtime.admin.status("mount", move || {
        let totals = at.client.totals();
        let shown = json!({
            "mount_point": place,
            "requests_over": way(by),
            "session": at.client.session_id(),
            "routing_version": at.client.routing_version().0,
            "open_files": at.files.count(),
            "open_directories": at.directories.count(),
            "known_inodes": at.known.count(),
            "callbacks": at.client.callbacks(),
            "lost_changes": at.client.lost_changes(),
            "user_rings": at.rings.shown(),
            "told_names": at.coherence.told.count(),
            "chain_read_bytes": totals.read_bytes,
            "chain_written_bytes": totals.written_bytes,
            "chain_retries": totals.retries,
        });
        async move { shown }
    });
}

/// The mount point as an absolute path; a dead mount that lies there is taken away.
fn free_mount_point(path: &Path) -> Result<PathBuf> {
    let dead = guard::is_dead(path);
    if dead.with_context(|| format!("look at the mount point {}", path.display()))? {
        tracing::warn!(path = %path.display(), "taking away a dead mount");
        guard::detach(path)
            .with_context(|| format!("take away the dead mount at {}", path.display()))?;
    }
    let path = fs::canonicalize(path).with_context(|| {
        format!("find the mount point {}; make the folder first", path.display())
    })?;
    anyhow::ensure!(path.is_dir(), "the mount point {} is no folder", path.display());
    Ok(path)
}

fn kernel_options(config: &MountConfig, mount_point: &Path, at: &Mounted) -> Options {
    let (pooled, plain) = (limits::WRITES_POOLED_BYTES, limits::WRITES_PLAIN_BYTES);
    Options {
        mount: MountOptions {
            mount_point: mount_point.to_owned(),
            name: "ff2".into(),
            read_only: config.read_only,
            allow_other: config.allow_other,
        },
        wanted: tune::wanted(),
        io_uring: match config.io_uring {
            OverIoUring::Auto => IoUring::Auto,
            OverIoUring::Yes => IoUring::Yes,
            OverIoUring::No => IoUring::No,
        },
        memory: WriteMemory::new(at.client.pool().clone(), pooled, plain),
    }
}

fn way(way: Way) -> &'static str {
    match way {
        Way::Device => "/dev/fuse",
        Way::Ring => "io_uring",
    }
}

/// Mounts; from here on requests come.
fn start(
    executors: &Executors,
    options: Options,
    at: Arc<Mounted>,
) -> io::Result<ff2_fuse_kernel::Mounted> {
    let mounted = ff2_fuse_kernel::mount(executors, options, Arc::new(Requests(at.clone())))?;
    let _ = at.notifier.set(mounted.notifier.clone());
    Ok(mounted)
}

/// Unmounts. If programs still use the mount it leaves the tree now, and its files fail when this
/// process ends.
async fn unmount(mounted: ff2_fuse_kernel::Mounted, mount_point: &Path) {
    let mounted = Arc::new(mounted);
    let (place, own) = (mount_point.to_owned(), mounted.clone());
    let outcome = tokio::task::spawn_blocking(move || take_away(&own.unmounter, &place));
    match outcome.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "not unmounted"),
        Err(error) => tracing::error!(%error, "not unmounted"),
    }
    if tokio::time::timeout(limits::DRAIN, mounted.ended()).await.is_err() {
        tracing::warn!("programs still use files of the mount");
    }
}

fn take_away(unmounter: &Unmounter, place: &Path) -> io::Result<()> {
    unmounter.unmount().or_else(|error| {
        tracing::warn!(%error, "the mount is in use: detaching it");
        guard::detach(place)
    })
}

/// Closes what is open, reports what was written, ends the session.
async fn finish(at: &Mounted) {
    at.rings.stop().await;
    at.requests.close();
    if tokio::time::timeout(limits::DRAIN, at.requests.wait()).await.is_err() {
        tracing::warn!(requests = at.requests.len(), "requests in progress are given up");
    }
    drop(at.files.drain());
    at.client.close().await;
}
