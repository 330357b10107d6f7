//! `ff2ctl mount` and `umount`, and what the kernel says about a mount point.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::{
    cli::Surroundings,
    cluster::{ClusterFile, Folder, Name, Role},
    process, up,
};

/// After its mount is gone, a mount's process writes back and closes its session.
const END_PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MountArgs {
    /// An empty folder; it is made if it is missing.
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
    let mut file = folder.load()?;
    let _lock = folder.lock()?;
    let path = std::path::absolute(&args.path)?;
    let name = up::add_mount(&mut file, path.clone());
    let runs = process::running(folder, name).is_some();
    if !runs {
        folder.save(&file)?;
        up::write_config(folder, &file, name)?;
        up::start_and_wait(folder, &file, name).await?;
    }
    let value = json!({ "mount_point": path, "process": name.to_string(), "was_mounted": runs });
    around.output.print(&value, || match runs {
        true => format!("{} is mounted already", path.display()),
        false => format!("mounted on {}", path.display()),
    })
}

pub(crate) async fn umount(around: &Surroundings, args: &UmountArgs) -> Result<()> {
    let folder = &around.folder;
    let mut file = folder.load()?;
    let _lock = folder.lock()?;
    let path = std::path::absolute(&args.path)?;
    let name = find(&file, &path)?;
    take_down(folder, name, &path, args.lazy).await?;
    file.processes.retain(|process| process.name() != name);
    folder.save(&file)?;
    // Its index will be given to another mount.
    let own = folder.of(name);
    if own.exists() {
        fs::remove_dir_all(&own).with_context(|| format!("remove {}", own.display()))?;
    }
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
    match state(path) {
        MountState::Free => {}
        MountState::Dead => detach(path)?,
        MountState::Live => {
            let plain = unmount(path, false);
            if lazy && plain.is_err() {
                detach(path)?;
            } else {
                plain.with_context(|| {
                    format!(
                        "unmount {0}; if programs use it, `fuser -vm {0}` lists them; --lazy unmounts \
                         all the same",
                        path.display()
                    )
                })?;
            }
        }
    }
    if let Some(running) = process::running(folder, name)
        && !process::wait_end(running, END_PATIENCE).await
    {
        process::stop(folder, name).await?;
    }
    ensure!(state(path) == MountState::Free, "{} is still mounted", path.display());
    Ok(())
}

/// What is mounted at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MountState {
    Free,
    /// A FUSE mount whose process is gone.
    Dead,
    Live,
}

pub(crate) fn state(path: &Path) -> MountState {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match file_system_at(&table, path) {
        None => MountState::Free,
        Some(kind) if kind.starts_with("fuse") => match fs::metadata(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => MountState::Dead,
            _ => MountState::Live,
        },
        Some(_) => MountState::Live,
    }
}

pub(crate) fn is_dead(path: &Path) -> bool {
    state(path) == MountState::Dead
}

/// Takes a mount out of the tree at once, whoever uses it.
pub(crate) fn detach(path: &Path) -> Result<()> {
    unmount(path, true).with_context(|| format!("unmount {}", path.display()))
}

/// With fusermount3, which any user may run; `umount` where it is missing.
fn unmount(path: &Path, lazy: bool) -> Result<()> {
    let fuse = if lazy { "-uz" } else { "-u" };
    let plain: &[&str] = if lazy { &["-l"] } else { &[] };
    let mut said = String::new();
    for (program, arguments) in [("fusermount3", &[fuse][..]), ("umount", plain)] {
        match Command::new(program).args(arguments).arg(path).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            }
            Err(error) => said = format!("{program}: {error}"),
        }
    }
    bail!("{said}")
}

/// The type of what is mounted at `path`: the last line of the table about it counts.
fn file_system_at(table: &str, path: &Path) -> Option<String> {
    let mut found = None;
    for line in table.lines() {
        // 36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mounted) = left.split(' ').nth(4) else { continue };
        if Path::new(&unescape(mounted)) == path {
            found = right.split(' ').next().map(str::to_owned);
        }
    }
    found
}

/// The kernel writes blanks and backslashes of a path as `\040` and `\134`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "36 35 98:0 / / rw shared:1 - ext4 /dev/vda rw\n\
                     40 36 0:50 / /mnt/a\\040b rw,nosuid - fuse.ff2 ff2 rw,user_id=0\n\
                     garbage\n\
                     41 36 0:51 / /mnt/c rw - fuse x rw\n\
                     42 36 0:51 / /mnt/c rw master:2 - ext4 x rw\n";
        assert_eq!(file_system_at(table, Path::new("/mnt/a b")).as_deref(), Some("fuse.ff2"));
        assert_eq!(file_system_at(table, Path::new("/mnt/c")).as_deref(), Some("ext4"));
        assert_eq!(file_system_at(table, Path::new("/mnt")), None);
        assert_eq!(state(Path::new("/proc")), MountState::Live);
        assert_eq!(state(Path::new("/nonexistent")), MountState::Free);
    }
}
