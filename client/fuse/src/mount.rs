//! The life of a mount: connect, mount, serve, unmount.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use ff2_client::{Client, ClientOptions, InodeId, UserToken, pb};
use ff2_daemon::{Runtime, config::MountConfig};
use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::{
    coherence::{self, Coherence},
    copies::Copies,
    device::Device,
    files::{Directories, Files},
    guard,
    known::Known,
    limits,
    lock_owners::LockOwners,
    mounted::{Mounted, Traffic},
    requests::Requests,
    tune,
    who::Groups,
};

/// Mounts the volume and serves it until the process is told to stop or somebody unmounts it.
pub async fn serve(config: Arc<MountConfig>, runtime: Runtime) -> Result<()> {
    let mount_point = free_mount_point(&config.mount_point)?;
    let token = UserToken::load(&config.token_file)
        .with_context(|| format!("load the token {}", config.token_file.display()))?;
    let for_all_users = token.claims().root;
    let options = options(&config, token);
    let connected = if config.cache_ms == 0 {
        Client::connect(options).await.map(|client| (client, None))
    } else {
        let connected = Client::connect_coherent(options).await;
        connected.map(|(client, invalidations)| (client, Some(invalidations)))
    };
    let (client, invalidations) =
        connected.with_context(|| format!("connect to the cluster {}", config.cluster_id))?;
    let root = root(&config, &client).await?;
    let at = mounted(&config, &runtime, client.clone(), for_all_users, InodeId(root.inode));
    show(&runtime, &at, &config);
    // Known before anybody asks, so that the mount point can be looked at from the first outage on.
    at.last.lock().root = Some(root);

    let (unmounter, ended) = {
        let (config, at) = (config.clone(), at.clone());
        let place = mount_point.clone();
        tokio::task::spawn_blocking(move || start(&config, &place, at)).await?
    }
    .with_context(|| format!("mount at {}", mount_point.display()))?;
    if let Some(invalidations) = invalidations {
        runtime.tasks.spawn(coherence::serve(at.clone(), invalidations));
    }
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
    tracing::info!(mount_point = %mount_point.display(), volume = %config.volume, "mounted");

    let ended = until_stopped(&runtime, ended).await;
    runtime.admin.set_ready(false);
    if let Some(ended) = ended {
        unmount(unmounter, &mount_point, ended).await;
    }
    finish(&at).await;
    Ok(())
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
        .description(description)
        .cache(Duration::from_millis(config.cache_ms).min(limits::UNTOLD_CACHE))
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
    let copies =
        Copies::new(client.pool().clone(), limits::WRITES_POOLED_BYTES, limits::WRITES_PLAIN_BYTES);
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
        copies,
        groups: Groups::new(),
        operations: runtime.operations.clone(),
        traffic,
        runtime: tokio::runtime::Handle::current(),
        requests: TaskTracker::new(),
        last: Mutex::default(),
        notifier: OnceLock::new(),
        device: OnceLock::new(),
    })
}

/// What the admin socket shows of the mount.
fn show(runtime: &Runtime, at: &Arc<Mounted>, config: &MountConfig) {
    let (at, place) = (at.clone(), config.mount_point.display().to_string());
    runtime.admin.status("mount", move || {
        let totals = at.client.totals();
        let shown = json!({
            "mount_point": place,
            "session": at.client.session_id(),
            "routing_version": at.client.routing_version().0,
            "open_files": at.files.count(),
            "open_directories": at.directories.count(),
            "known_inodes": at.known.count(),
            "callbacks": at.client.callbacks(),
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

fn mount_config(config: &MountConfig) -> Config {
    let mut mount = Config::default();
    mount.mount_options = vec![
        MountOption::FSName("ff2".into()),
        // As a plain option: fuser hands `Subtype` to fusermount only.
        MountOption::CUSTOM("subtype=ff2".into()),
        MountOption::DefaultPermissions,
        MountOption::NoDev,
        MountOption::NoSuid,
        if config.read_only { MountOption::RO } else { MountOption::RW },
    ];
    mount.acl = if config.allow_other { SessionACL::All } else { SessionACL::Owner };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    mount.n_threads = Some(cores.clamp(1, limits::THREADS_MAX));
    mount.clone_fd = true;
    mount
}

/// Mounts, and starts the thread that owns fuser's session; the receiver tells when it ended.
fn start(
    config: &MountConfig,
    mount_point: &Path,
    at: Arc<Mounted>,
) -> io::Result<(SessionUnmounter, oneshot::Receiver<()>)> {
    let mut session = Session::new(Requests(at.clone()), mount_point, &mount_config(config))?;
    let _ = at.notifier.set(session.notifier());
    let _ = at.device.set(Device::new(session.as_fd())?);
    let unmounter = session.unmount_callable();
    let (end, ended) = oneshot::channel();
    thread::Builder::new().name("ff2-fuse-session".into()).spawn(move || {
        if let Err(error) = session.run() {
            tracing::error!(%error, "the kernel's connection broke");
        }
        // Nobody listens once the process is on its way out.
        let _ = end.send(());
    })?;
    Ok((unmounter, ended))
}

/// Returns the receiver if the session still runs.
async fn until_stopped(
    runtime: &Runtime,
    mut ended: oneshot::Receiver<()>,
) -> Option<oneshot::Receiver<()>> {
    tokio::select! {
        () = runtime.stop.cancelled() => Some(ended),
        _ = &mut ended => {
            tracing::info!("unmounted by somebody");
            None
        }
    }
}

/// Unmounts. If programs still use the mount it leaves the tree now, and its files fail when this
/// process ends.
async fn unmount(
    mut unmounter: SessionUnmounter,
    mount_point: &Path,
    ended: oneshot::Receiver<()>,
) {
    let place = mount_point.to_owned();
    let outcome = tokio::task::spawn_blocking(move || {
        unmounter.unmount().or_else(|error| {
            tracing::warn!(%error, "the mount is in use: detaching it");
            guard::detach(&place)
        })
    });
    match outcome.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "not unmounted"),
        Err(error) => tracing::error!(%error, "not unmounted"),
    }
    if tokio::time::timeout(limits::DRAIN, ended).await.is_err() {
        tracing::warn!("programs still use files of the mount");
    }
}

/// Closes what is open, reports what was written, ends the session.
async fn finish(at: &Mounted) {
    at.requests.close();
    if tokio::time::timeout(limits::DRAIN, at.requests.wait()).await.is_err() {
        tracing::warn!(requests = at.requests.len(), "requests in progress are given up");
    }
    drop(at.files.drain());
    at.client.close().await;
}
