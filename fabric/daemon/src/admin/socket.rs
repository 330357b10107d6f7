//! The unix socket's place. A socket's path may have 107 bytes only, which deep folders exceed: then
//! it is reached through the open folder in `/proc/self/fd`.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

pub const SOCKET_NAME: &str = "admin.sock";

/// `sun_path` of unix(7), less its NUL.
const PATH_BYTES_MAX: usize = 107;

/// A path that fits, and what keeps it valid.
struct Reachable {
    path: PathBuf,
    _folder: Option<File>,
}

fn reachable(data_dir: &Path) -> io::Result<Reachable> {
    let path = data_dir.join(SOCKET_NAME);
    if path.as_os_str().as_bytes().len() <= PATH_BYTES_MAX {
        return Ok(Reachable { path, _folder: None });
    }
    let folder = File::open(data_dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_NAME}", folder.as_raw_fd()));
    Ok(Reachable { path, _folder: Some(folder) })
}

/// Replaces an old socket. Only this user may connect; the folder, made by the pid file, is closed to
/// others too, so there is no moment in between.
pub(super) fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let place = reachable(data_dir)?;
    match fs::remove_file(&place.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&place.path)?;
    fs::set_permissions(&place.path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub(super) async fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    let place = reachable(data_dir)?;
    UnixStream::connect(&place.path).await
}
