//! Mount points as the kernel sees them. Nothing but a file system of type `fuse.ff2` is ever unmounted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// The type that the kernel shows for our mounts.
const OURS: &str = "fuse.ff2";

/// What is mounted at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountState {
    Free,
    /// A mount of ff2 whose process is gone.
    Dead,
    /// A mount of ff2, of this cluster or another.
    Live,
    /// Another file system, with its type.
    Foreign(String),
}

pub(crate) fn state(path: &Path) -> MountState {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match file_system_at(&table, path) {
        None => MountState::Free,
        Some(kind) if kind == OURS => match fs::metadata(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => MountState::Dead,
            _ => MountState::Live,
        },
        Some(kind) => MountState::Foreign(kind),
    }
}

/// The path as the kernel's table has it: absolute, without links and `..`. It need not exist, and a
/// dead mount at its end is not touched.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| format!("find {}", path.display()))?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return canonical(&path);
    };
    let path = resolve(parent)?.join(name);
    if path.is_symlink() { canonical(&path) } else { Ok(path) }
}

fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("find {}", path.display()))
}

/// Takes a mount of ff2 out of the tree at once, whoever uses it.
pub(crate) fn detach(path: &Path) -> Result<()> {
    unmount(path, true).with_context(|| format!("unmount {}", path.display()))
}

/// With fusermount3, which any user may run; `umount` where it is missing.
pub(super) fn unmount(path: &Path, lazy: bool) -> Result<()> {
    if let MountState::Foreign(kind) = state(path) {
        bail!("a file system of type {kind} is mounted there, not ff2");
    }
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
    use std::os::unix::fs::symlink;

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
    }

    #[test]
    fn a_strangers_file_system_is_known_and_never_unmounted() {
        let proc = Path::new("/proc");
        assert_eq!(state(proc), MountState::Foreign("proc".into()));
        for lazy in [false, true] {
            assert!(unmount(proc, lazy).unwrap_err().to_string().contains("type proc"));
        }
        assert_eq!(state(proc), MountState::Foreign("proc".into()));
        assert_eq!(state(Path::new("/nonexistent")), MountState::Free);
    }

    #[test]
    fn paths_are_those_of_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(dir.join("real/sub")).unwrap();
        symlink(dir.join("real"), dir.join("link")).unwrap();
        let real = dir.join("real");
        for (given, meant) in [
            ("real", real.clone()),
            ("link", real.clone()),
            ("link/sub", real.join("sub")),
            ("link/missing/deeper", real.join("missing/deeper")),
            ("real/sub/..", real.clone()),
            ("real/../link/new/", real.join("new")),
        ] {
            assert_eq!(resolve(&dir.join(given)).unwrap(), meant, "{given}");
        }
        assert!(resolve(&dir.join("missing/..")).is_err());
        assert!(resolve(Path::new("here")).unwrap().is_absolute());
        assert_eq!(resolve(Path::new("/")).unwrap(), Path::new("/"));
    }
}
