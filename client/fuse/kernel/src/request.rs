//! Requests: what the kernel asks, decoded and checked once.
//!
//! A request has three parts on either way that it comes: the header, the arguments of its operation
//! (a structure), and what follows them (names, bytes). Nothing here trusts a length: whatever does not
//! fit is a [`Malformed`], never a panic.

mod decode;
#[cfg(test)]
mod tests;

use ff2_fabric::SharedBuf;

pub(crate) use decode::{args_bytes, decode};

use crate::{answer::Answer, interrupts::Interrupted, memory::Share};

/// One request, with the way to answer it. Dropped without an answer it is answered with EIO.
#[derive(Debug)]
pub struct Request {
    pub asker: Asker,
    /// What it is about; see each [`Operation`].
    pub inode: u64,
    pub operation: Operation,
    /// Tells that a signal wants the asker to go on without the answer.
    pub interrupted: Interrupted,
    pub answer: Answer,
}

/// The process behind a request; 0, 0, 0 is the kernel itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asker {
    pub uid: u32,
    pub gid: u32,
    /// The thread's number.
    pub pid: u32,
}

/// What is asked. The request's inode is the parent where there is a name, else the object itself.
#[derive(Debug)]
pub enum Operation {
    Lookup {
        name: Vec<u8>,
    },
    GetAttr {
        handle: Option<u64>,
    },
    /// Attributes with the time of birth.
    Statx {
        handle: Option<u64>,
    },
    SetAttr(SetAttr),
    ReadLink,
    Symlink {
        name: Vec<u8>,
        target: Vec<u8>,
    },
    MakeNode {
        name: Vec<u8>,
        mode: u32,
        rdev: u32,
        umask: u32,
    },
    MakeDir {
        name: Vec<u8>,
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: Vec<u8>,
    },
    RemoveDir {
        name: Vec<u8>,
    },
    /// `flags`: those of renameat2(2).
    Rename {
        name: Vec<u8>,
        new_parent: u64,
        new_name: Vec<u8>,
        flags: u32,
    },
    /// The request's inode is the new parent.
    Link {
        inode: u64,
        name: Vec<u8>,
    },
    /// `flags`: those of open(2).
    Open {
        flags: i32,
    },
    Create {
        name: Vec<u8>,
        flags: i32,
        mode: u32,
        umask: u32,
    },
    /// A file without a name in this folder.
    TempFile {
        flags: i32,
        mode: u32,
        umask: u32,
    },
    Read(Read),
    Write(Write),
    StatFs,
    Flush {
        handle: u64,
        lock_owner: u64,
    },
    Release {
        handle: u64,
    },
    Fsync {
        handle: u64,
        data_only: bool,
    },
    OpenDir,
    ReadDir {
        handle: u64,
        offset: u64,
        size: u32,
        with_attributes: bool,
    },
    ReleaseDir {
        handle: u64,
    },
    FsyncDir {
        handle: u64,
    },
    SetXattr {
        name: Vec<u8>,
        value: Vec<u8>,
        flags: i32,
    },
    /// A `size` of 0 asks how large the answer is.
    GetXattr {
        name: Vec<u8>,
        size: u32,
    },
    ListXattr {
        size: u32,
    },
    RemoveXattr {
        name: Vec<u8>,
    },
    GetLock(Lock),
    SetLock {
        lock: Lock,
        wait: bool,
    },
    Access {
        mask: u32,
    },
    /// `mode`: that of fallocate(2).
    Allocate {
        handle: u64,
        offset: u64,
        length: u64,
        mode: i32,
    },
    Seek {
        handle: u64,
        offset: u64,
        whence: u32,
    },
    CopyRange(CopyRange),
    Ioctl {
        handle: u64,
        command: u32,
    },
    /// What this crate does not know, or does not hand on: to be answered with ENOSYS.
    Unknown {
        opcode: u32,
    },
}

impl Operation {
    /// In the words of the system calls, for lists and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lookup { .. } => "lookup",
            Self::GetAttr { .. } => "getattr",
            Self::Statx { .. } => "statx",
            Self::SetAttr(_) => "setattr",
            Self::ReadLink => "readlink",
            Self::Symlink { .. } => "symlink",
            Self::MakeNode { .. } => "mknod",
            Self::MakeDir { .. } => "mkdir",
            Self::Unlink { .. } => "unlink",
            Self::RemoveDir { .. } => "rmdir",
            Self::Rename { .. } => "rename",
            Self::Link { .. } => "link",
            Self::Open { .. } => "open",
            Self::Create { .. } => "create",
            Self::TempFile { .. } => "tmpfile",
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::StatFs => "statfs",
            Self::Flush { .. } => "flush",
            Self::Release { .. } => "release",
            Self::Fsync { .. } => "fsync",
            Self::OpenDir => "opendir",
            Self::ReadDir { with_attributes: false, .. } => "readdir",
            Self::ReadDir { with_attributes: true, .. } => "readdirplus",
            Self::ReleaseDir { .. } => "releasedir",
            Self::FsyncDir { .. } => "fsyncdir",
            Self::SetXattr { .. } => "setxattr",
            Self::GetXattr { .. } => "getxattr",
            Self::ListXattr { .. } => "listxattr",
            Self::RemoveXattr { .. } => "removexattr",
            Self::GetLock(_) => "getlk",
            Self::SetLock { .. } => "setlk",
            Self::Access { .. } => "access",
            Self::Allocate { .. } => "fallocate",
            Self::Seek { .. } => "lseek",
            Self::CopyRange(_) => "copy_file_range",
            Self::Ioctl { .. } => "ioctl",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// Whether it may wait for another program. That a lock is let go comes by the same opcode, since
    /// flock(2) may sleep unless told otherwise; it never waits, and others wait for it.
    pub(crate) fn may_stay(&self) -> bool {
        matches!(self, Self::SetLock { lock, wait: true } if lock.kind != libc::F_UNLCK)
    }
}

/// What needs no answer: it goes to [`crate::Filesystem::forget`], or concerns the mount itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The kernel gave up so many references of each inode.
    Forget(Vec<(u64, u64)>),
    Interrupt {
        unique: u64,
    },
    Destroy,
}

/// What a message turned out to be.
#[derive(Debug)]
pub(crate) enum Decoded {
    Operation(Operation),
    Notice(Notice),
}

/// Attributes to be changed; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    pub handle: Option<u64>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    /// Nanoseconds since 1970.
    At(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub handle: u64,
    pub offset: u64,
    pub size: u32,
}

#[derive(Debug)]
pub struct Write {
    pub handle: u64,
    pub offset: u64,
    /// Of [`crate::write`].
    pub how: u32,
    /// Those of the open file, open(2).
    pub flags: i32,
    pub payload: Payload,
}

/// Bytes of a write, where the kernel put them. Their memory is the mount's until the last clone of
/// them is dropped.
#[derive(Debug, Default)]
pub struct Payload {
    pub bytes: SharedBuf,
    /// Its part of the bound on writes in progress.
    pub(crate) _share: Option<Share>,
}

/// A lock to be looked for, taken or, with `F_UNLCK`, let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub handle: u64,
    pub owner: u64,
    pub start: u64,
    /// The last byte.
    pub end: u64,
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub kind: i32,
    pub pid: u32,
    pub is_flock: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRange {
    pub handle_in: u64,
    pub offset_in: u64,
    pub inode_out: u64,
    pub handle_out: u64,
    pub offset_out: u64,
    pub length: u64,
}

/// A message that is not what its header says it is. The kernel does not send such; who reads them is a
/// test, or does not read from the kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a message of {has} bytes has no header, which has {needs}")]
    NoHeader { has: usize, needs: usize },
    #[error("a message of {has} bytes says that it has {says}")]
    WrongLength { has: usize, says: usize },
    #[error("operation {opcode}: {has} bytes of arguments, needs {needs}")]
    ShortArguments { opcode: u32, has: usize, needs: usize },
    #[error("operation {opcode}: a name does not end")]
    NameWithoutEnd { opcode: u32 },
    #[error("operation {opcode}: says that {says} bytes follow, and there are {has}")]
    WrongPayload { opcode: u32, has: usize, says: usize },
}
