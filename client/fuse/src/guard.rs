//! Takes a mount away whose process was killed.
//!
//! The kernel ends the connection of a dead FUSE process, but leaves the mount: every access then
//! fails with ENOTCONN until somebody unmounts it. The guard is this program started again by the
//! mount; it sleeps on a pipe whose other end closes when the mount's process ends, in whatever way,
//! and then detaches the mount point if it is dead. A mount that ended cleanly is gone by then.

use std::{
    ffi::CString,
    io::{self, Read},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use crate::limits;

/// First argument of the guard.
pub const ARGUMENT: &str = "guard";

/// Starts the guard of a mount. The returned child's pipe lives as long as this process.
pub(crate) fn start(mount_point: &Path) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg0("ff2-fuse-guard")
        .arg(ARGUMENT)
        .arg(mount_point)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Its own group: a signal to the terminal's processes must not end the guard first.
        .process_group(0)
        .spawn()
}

/// The guard's own main: returns when the mount's process ended and the mount point is free.
pub fn watch(mount_point: &Path) -> io::Result<()> {
    let mut pipe = io::stdin();
    let mut byte = [0];
    // Nothing is ever sent: a read ends when the other end is closed.
    while pipe.read(&mut byte)? > 0 {}
    let deadline = Instant::now() + limits::GUARD_PATIENCE;
    loop {
        match is_dead(mount_point) {
            Ok(true) => return detach(mount_point),
            Ok(false) => return Ok(()),
            // The connection is about to end.
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    }
}

/// Whether a mount lies here whose process is gone.
pub(crate) fn is_dead(mount_point: &Path) -> io::Result<bool> {
    match std::fs::metadata(mount_point) {
        Ok(_) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the mount out of the tree; who still has files open there sees them fail.
pub(crate) fn detach(mount_point: &Path) -> io::Result<()> {
    let path = CString::new(mount_point.as_os_str().as_bytes())?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    let outcome = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    if outcome == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::EPERM) {
        return Err(error);
    }
    // Not root: the setuid helper may.
    let status = Command::new("fusermount3").args(["-u", "-z", "--"]).arg(mount_point).status()?;
    if status.success() { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_folder_is_no_dead_mount() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_dead(folder.path()).unwrap());
        assert!(!is_dead(&folder.path().join("missing")).unwrap());
        assert!(detach(folder.path()).is_err(), "nothing is mounted there");
    }
}
