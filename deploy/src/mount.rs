//! `ff2ctl mount` and `umount`: mounts as parts of the local cluster.
//!
//! A mount is entered in `cluster.json` only where nothing is mounted yet, and the entry is taken back
//! when the mount does not come up. So what stands there is this cluster's; a file system of another
//! type, or a mount whose process is not ours, is left alone all the same.

mod point;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::{
    cli::Surroundings,
    cluster::{ClusterFile, Folder, Name, Process, Role},
    process, up,
};
pub(crate) use point::{MountState, detach, resolve, state};

/// After its mount is gone, a mount's process writes back and closes its session.
const END_PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MountArgs {
    /// An empty folder; if it is missing it is made, and removed again by `umount`.
    path: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct UmountArgs {
    path: PathBuf,
    /// Unmount although programs use it: they see errors.
    #[arg(long)]
    lazy: bool,
}

pub(crate) async fn mount(around: &Surroundings, args: &MountArgs) -> Result<()> {
    let folder = &around.folder;
    let (mut file, _lock) = folder.load_locked()?;
    let path = resolve(&args.path)?;
    let name = enter(folder, &mut file, &path)?;
    if let Some(ending) = process::running(folder, name)
        && state(&path) == MountState::Free
    {
        // Somebody unmounted it: it writes back, and ends.
        process::wait_end(ending, END_PATIENCE).await;
    }
    let runs = process::running(folder, name).is_some();
    if runs {
        up::wait_ready(folder, name).await?;
    } else {
        folder.save(&file)?;
        if let Err(error) = start(folder, &file, name).await {
            take_back(folder, &mut file, name).await?;
            return Err(error);
        }
    }
    let value = json!({ "mount_point": path, "process": name.to_string(), "was_mounted": runs });
    around.output.print(&value, || match runs {
        true => format!("{} is mounted already", path.display()),
        false => format!("mounted on {}", path.display()),
    })
}

async fn start(folder: &Folder, file: &ClusterFile, name: Name) -> Result<()> {
    up::write_config(folder, file, name)?;
    up::start_and_wait(folder, file, name).await
}

/// The cluster's mount at this path; a new entry, not yet saved, if the place is free.
pub(crate) fn enter(folder: &Folder, file: &mut ClusterFile, path: &Path) -> Result<Name> {
    let known = file.of(Role::Fuse).find(|p| p.mount_point.as_deref() == Some(path));
    if let Some(known) = known.map(Process::name) {
        if process::running(folder, known).is_none() {
            ensure_free(path)?;
        }
        return Ok(known);
    }
    ensure_free(path)?;
    let index = (0..).find(|index| file.of(Role::Fuse).all(|p| p.index != *index)).unwrap_or(0);
    let process = Process {
        mount_point: Some(path.to_owned()),
        made_mount_point: state(path) == MountState::Free && !path.exists(),
        ..Process::new(Role::Fuse, index)
    };
    let name = process.name();
    file.processes.push(process);
    Ok(name)
}

/// Only a dead mount of ff2 may lie where a mount shall be.
pub(crate) fn ensure_free(path: &Path) -> Result<()> {
    let what = match state(path) {
        MountState::Free | MountState::Dead => return Ok(()),
        MountState::Live => "another ff2".to_owned(),
        MountState::Foreign(kind) => format!("a file system of type {kind}"),
    };
    bail!("{what} is mounted on {} already: unmount it, or choose another folder", path.display())
}

/// Undoes [`enter`] after a mount that did not come up.
pub(crate) async fn take_back(folder: &Folder, file: &mut ClusterFile, name: Name) -> Result<()> {
    process::stop(folder, name).await?;
    forget(folder, file, name)
}

/// Takes a mount that is down out of the cluster: its index will be given to another one.
fn forget(folder: &Folder, file: &mut ClusterFile, name: Name) -> Result<()> {
    remove_made(file.find(name)?)?;
    file.processes.retain(|process| process.name() != name);
    folder.save(file)?;
    let own = folder.of(name);
    match fs::remove_dir_all(&own) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", own.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a mount point that was made for the mount, unless others use it.
pub(crate) fn remove_made(process: &Process) -> Result<()> {
    let Some(path) = process.mount_point.as_deref().filter(|_| process.made_mount_point) else {
        return Ok(());
    };
    use io::ErrorKind::{DirectoryNotEmpty, NotFound, ResourceBusy};
    match fs::remove_dir(path) {
        Err(error) if ![DirectoryNotEmpty, NotFound, ResourceBusy].contains(&error.kind()) => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

pub(crate) async fn umount(around: &Surroundings, args: &UmountArgs) -> Result<()> {
    let folder = &around.folder;
    let (mut file, _lock) = folder.load_locked()?;
    let path = resolve(&args.path)?;
    let name = find(&file, &path)?;
    take_down(folder, name, &path, args.lazy).await?;
    forget(folder, &mut file, name)?;
    around.output.print(&json!({ "unmounted": path }), || format!("unmounted {}", path.display()))
}

fn find(file: &ClusterFile, path: &Path) -> Result<Name> {
    let mounts = file.of(Role::Fuse).filter_map(|p| Some((p.name(), p.mount_point.as_deref()?)));
    let mounts: Vec<(Name, &Path)> = mounts.collect();
    let found = mounts.iter().find(|(_, mounted)| *mounted == path);
    found.map(|(name, _)| *name).with_context(|| {
        let known: Vec<String> =
            mounts.iter().map(|(_, path)| path.display().to_string()).collect();
        match known.is_empty() {
            true => "this cluster has no mounts".to_owned(),
            false => format!(
                "{} is no mount of this cluster; it has {}",
                path.display(),
                known.join(", ")
            ),
        }
    })
}

/// Unmounts, and ends the mount's process. A path that is in use stays, unless `lazy`.
pub(crate) async fn take_down(folder: &Folder, name: Name, path: &Path, lazy: bool) -> Result<()> {
    let running = process::running(folder, name);
    match state(path) {
        MountState::Free => {}
        MountState::Dead => detach(path)?,
        // Our mount ended with its process: what is there now is somebody else's.
        MountState::Live | MountState::Foreign(_) if running.is_none() => return Ok(()),
        MountState::Foreign(kind) => {
            bail!(
                "a file system of type {kind} is mounted over {}: unmount that one first",
                path.display()
            )
        }
        MountState::Live => unmount(path, lazy)?,
    }
    if let Some(running) = running
        && !process::wait_end(running, END_PATIENCE).await
    {
        process::stop(folder, name).await?;
        if state(path) == MountState::Dead {
            detach(path)?;
        }
    }
    ensure!(state(path) == MountState::Free, "{} is still mounted", path.display());
    Ok(())
}

fn unmount(path: &Path, lazy: bool) -> Result<()> {
    match point::unmount(path, false) {
        Err(_) if lazy => detach(path),
        outcome => outcome.with_context(|| {
            format!(
                "unmount {0}; if programs use it, `fuser -vm {0}` lists them; --lazy unmounts all \
                 the same",
                path.display()
            )
        }),
    }
}

pub(crate) fn is_dead(path: &Path) -> bool {
    state(path) == MountState::Dead
}

#[cfg(test)]
mod tests;
