//! Acting on a user's files with no more rights than the user has.

use std::io;

use crate::spec::User;

/// Calls `act` while this thread, and the threads that it starts, open files as that user. Whoever runs as root may
/// otherwise be led anywhere by a link in a folder of the user's. Everything but files is done as before.
///
/// # Errors
/// Those of `act`; and if this process may not do so.
pub fn as_user<T>(user: Option<User>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(user) = user else { return act() };
    // SAFETY: no memory is handed over: a count of none with no list.
    if unsafe { libc::setgroups(0, std::ptr::null()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let before = (set_group(u32::MAX), set_user(u32::MAX));
    set_group(user.gid);
    set_user(user.uid);
    // These calls tell of no failure but by what is there afterwards.
    let outcome = match (set_group(u32::MAX), set_user(u32::MAX)) == (user.gid, user.uid) {
        true => act(),
        false => Err(io::Error::other(format!("may not open files as user {}", user.uid))),
    };
    set_user(before.1);
    set_group(before.0);
    outcome
}

/// Returns what it was before; the largest number changes nothing.
fn set_user(uid: u32) -> u32 {
    // SAFETY: it changes this thread's identity at files, and touches no memory.
    unsafe { libc::setfsuid(uid) as u32 }
}

fn set_group(gid: u32) -> u32 {
    // SAFETY: as above.
    unsafe { libc::setfsgid(gid) as u32 }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn what_a_user_may_not_open_is_not_opened_for_him() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can act as somebody else");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "mine").unwrap();
        let theirs = dir.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        let user = User { uid: 4_242, gid: 4_243 };
        std::os::unix::fs::chown(&theirs, Some(user.uid), Some(user.gid)).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        fs::set_permissions(dir.path(), open).unwrap();
        std::os::unix::fs::symlink(&secret, theirs.join("log")).unwrap();
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let write = as_user(Some(user), || fs::write(theirs.join("log"), "theirs"));
        assert_eq!(write.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let made = as_user(Some(user), || {
            let made = theirs.join("made");
            // Threads too.
            std::thread::scope(|scope| scope.spawn(|| fs::write(&made, "")).join().unwrap())?;
            fs::metadata(made)
        });
        let made = made.unwrap();
        assert_eq!((made.uid(), made.gid()), (user.uid, user.gid));
        assert_eq!(fs::read_to_string(&secret).unwrap(), "mine", "this process is itself again");
    }
}
