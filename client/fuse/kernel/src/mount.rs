//! Mounting and unmounting: by the system call where that is allowed, else by the setuid helper.

use std::{
    ffi::{CStr, CString, OsString},
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags},
    io::{FdFlags, fcntl_setfd},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

use crate::device::Device;

const DEVICE: &CStr = c"/dev/fuse";
/// The setuid helper of libfuse, and how it learns where to send the opened device.
const HELPER: &str = "fusermount3";
const HELPER_SOCKET: &str = "_FUSE_COMMFD";
/// `FUSE_DEV_IOC_CLONE`: `_IOR(229, 0, uint32_t)`.
const CLONE: libc::Ioctl = 0x8004_e500;

/// How a file system is mounted. Always without devices and setuid, and with the kernel's own checks of
/// permissions.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// A folder.
    pub mount_point: PathBuf,
    /// What lists of mounts show as source; the type is `fuse.` and this name.
    pub name: String,
    pub read_only: bool,
    /// Let users in beside the one who mounts.
    pub allow_other: bool,
}

/// Takes a mount away again.
#[derive(Debug)]
pub struct Unmounter {
    mount_point: PathBuf,
    device: Arc<Device>,
}

/// Mounts, and returns the kernel's side of the connection.
pub(crate) fn mount(options: &MountOptions) -> io::Result<OwnedFd> {
    match by_system_call(options) {
        // EPERM, or EACCES where the device is only root's.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => by_helper(options),
        outcome => outcome,
    }
}

fn by_system_call(options: &MountOptions) -> io::Result<OwnedFd> {
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let place = CString::new(options.mount_point.as_os_str().as_bytes())?;
    let source = CString::new(options.name.as_str())?;
    let kind = CString::new(format!("fuse.{}", options.name))?;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut data = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid},default_permissions",
        device.as_raw_fd()
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data)?;
    let mut flags = libc::MS_NOSUID | libc::MS_NODEV;
    if options.read_only {
        flags |= libc::MS_RDONLY;
    }
    // SAFETY: five NUL-terminated strings that outlive the call.
    let outcome = unsafe {
        libc::mount(source.as_ptr(), place.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    };
    if outcome == 0 { Ok(device) } else { Err(io::Error::last_os_error()) }
}

fn by_helper(options: &MountOptions) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    fcntl_setfd(&theirs, FdFlags::empty())?;
    let mut list = format!("fsname={0},subtype={0},default_permissions,nosuid,nodev", options.name);
    list.push_str(if options.read_only { ",ro" } else { ",rw" });
    if options.allow_other {
        list.push_str(",allow_other");
    }
    let output = Command::new(HELPER)
        .args(["-o", &list, "--"])
        .arg(&options.mount_point)
        .env(HELPER_SOCKET, theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .output();
    drop(theirs);
    let output = output.map_err(|error| {
        let why = format!("only root may mount without {HELPER}, which does not start: {error}");
        io::Error::new(io::ErrorKind::PermissionDenied, why)
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{HELPER}: {}", said.trim())));
    }
    let device = receive(&ours)?;
    fcntl_setfd(&device, FdFlags::CLOEXEC)?;
    Ok(device)
}

fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    received.ok_or_else(|| io::Error::other(format!("{HELPER} sent no device")))
}

/// Another opening of `/dev/fuse` that belongs to the same connection.
pub(crate) fn clone_device(device: &OwnedFd) -> io::Result<OwnedFd> {
    let clone = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let original: RawFd = device.as_raw_fd();
    // SAFETY: both descriptors are open, and the argument is a number that lives through the call.
    let outcome = unsafe { libc::ioctl(clone.as_raw_fd(), CLONE, &raw const original) };
    if outcome == 0 { Ok(clone) } else { Err(io::Error::last_os_error()) }
}

impl Unmounter {
    pub(crate) fn new(mount_point: PathBuf, device: Arc<Device>) -> Self {
        Self { mount_point, device }
    }

    /// Unmounts, unless somebody did: another file system may be mounted there by now. Fails with EBUSY
    /// while programs use it.
    pub fn unmount(&self) -> io::Result<()> {
        if !is_connected(&self.device)? {
            return Ok(());
        }
        let place = CString::new(self.mount_point.as_os_str().as_bytes())?;
        // SAFETY: a NUL-terminated string that outlives the call.
        if unsafe { libc::umount2(place.as_ptr(), 0) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EPERM) {
            return Err(error);
        }
        by_helper_unmount(&self.mount_point)
    }
}

fn by_helper_unmount(place: &Path) -> io::Result<()> {
    let arguments = [OsString::from("-u"), "--".into(), place.into()];
    let output = Command::new(HELPER).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{HELPER}: {}", said.trim())))
}

fn is_connected(device: &Device) -> io::Result<bool> {
    let fd = device.as_fd().as_raw_fd();
    let mut asked = libc::pollfd { fd, events: 0, revents: 0 };
    // SAFETY: one structure, which lives through the call.
    let outcome = unsafe { libc::poll(&raw mut asked, 1, 0) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(asked.revents & libc::POLLERR == 0)
}
