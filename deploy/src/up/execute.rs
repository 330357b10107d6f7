//! Does the steps of a plan, in order, and says what it does.

use std::{
    collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, process::Child,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{chains, configs, keys, plan::Step, serving};
use crate::{
    cli::Surroundings,
    cluster::{ClusterFile, Folder, Name, Role, make_folder, write_file},
    mount,
    output::Progress,
    process,
};

/// A daemon on a busy machine, with a large log to replay.
const READY_PATIENCE: Duration = Duration::from_secs(90);

pub(super) async fn all(
    around: &Surroundings,
    file: &ClusterFile,
    steps: Vec<Step>,
    progress: &Progress,
) -> Result<()> {
    let folder = &around.folder;
    let mut children = BTreeMap::new();
    if folder.root_token().exists() {
        keys::make_missing(folder, file)?;
    }
    for step in steps {
        match step {
            Step::SaveClusterFile => folder.save(file)?,
            Step::MakeKeys => {
                keys::make(folder, file)?;
                progress.done("made the cluster key, certificates and the root token");
            }
            Step::WriteConfig(name) => write_config(folder, file, name)?,
            Step::Format(name) => {
                progress.now(format!("formatting {name}"));
                format(folder, file, name).await?;
            }
            Step::ClearMount(path) => {
                mount::detach(&path)?;
                progress.done(&format!("cleared the dead mount {}", path.display()));
            }
            Step::MakeJobsDir(path) => make_jobs_dir(&path)?,
            Step::Start(names) => {
                for name in &names {
                    children.insert(*name, spawn(folder, file, *name)?);
                }
                progress.done(&format!("started {}", list(&names)));
            }
            Step::WaitReady(names) => {
                wait_all_ready(folder, &names, &mut children, progress).await?;
            }
            Step::Provide { replicas } => {
                progress.now("asking the cluster what it has");
                serving::provide(around, file, replicas, progress).await?;
            }
            Step::WaitServing => chains::wait_serving(around, progress).await?,
            Step::WaitWhole => chains::wait_whole(around, progress).await?,
        }
    }
    Ok(())
}

/// Starts one process that is configured, and waits until it serves.
pub(crate) async fn start_and_wait(folder: &Folder, file: &ClusterFile, name: Name) -> Result<()> {
    let child = spawn(folder, file, name)?;
    process::wait_ready(folder, name, Some(child), READY_PATIENCE).await
}

/// Waits until a process serves that runs already.
pub(crate) async fn wait_ready(folder: &Folder, name: Name) -> Result<()> {
    process::wait_ready(folder, name, None, READY_PATIENCE).await
}

pub(crate) fn write_config(folder: &Folder, file: &ClusterFile, name: Name) -> Result<()> {
    make_folder(&folder.of(name))?;
    let text = configs::text(folder, file, file.find(name)?);
    write_file(&folder.config(name), text.as_bytes(), 0o600)
}

/// What lies there was never served: an earlier `format` was interrupted, or failed.
async fn format(folder: &Folder, file: &ClusterFile, name: Name) -> Result<()> {
    let disks = file.find(name)?.disks;
    let mut folders: Vec<_> = (0..disks).map(|disk| folder.disk(name, disk)).collect();
    folders.push(folder.data(name));
    for path in folders {
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        make_folder(&path)?;
    }
    process::format(folder, name).await?;
    write_file(&folder.formatted(name), b"", 0o600)
}

fn spawn(folder: &Folder, file: &ClusterFile, name: Name) -> Result<Child> {
    let process = file.find(name)?;
    if let Some(path) = &process.mount_point {
        may_mount(path)?;
    }
    let arguments: &[&str] = if name.role == Role::Fuse { &[] } else { &["run"] };
    process::start(folder, name, arguments)
}

/// Users pass through it to the folders of their jobs.
fn make_jobs_dir(path: &Path) -> Result<()> {
    if !path.exists() {
        let make = || {
            fs::create_dir_all(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        };
        make()
            .with_context(|| format!("make {}, where jobs have their folders", path.display()))?;
    }
    Ok(())
}

fn may_mount(path: &Path) -> Result<()> {
    mount::ensure_free(path)?;
    if mount::is_dead(path) {
        mount::detach(path)?;
    }
    fs::create_dir_all(path).with_context(|| format!("make the mount point {}", path.display()))?;
    ensure!(path.is_dir(), "{} is not a folder", path.display());
    Ok(())
}

async fn wait_all_ready(
    folder: &Folder,
    names: &[Name],
    children: &mut BTreeMap<Name, Child>,
    progress: &Progress,
) -> Result<()> {
    for (done, name) in names.iter().enumerate() {
        progress.now(format!("waiting for {name} ({done} of {} ready)", names.len()));
        let child = children.remove(name);
        process::wait_ready(folder, *name, child, READY_PATIENCE).await?;
    }
    Ok(())
}

fn list(names: &[Name]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
