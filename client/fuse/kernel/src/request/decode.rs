//! From bytes to an operation.

use zerocopy::FromBytes;

use super::{
    CopyRange, Decoded, Lock, Malformed, Notice, Operation, Payload, Read, SetAttr, SetTime, Write,
};
use crate::abi::{self, InHeader, opcode, setattr};

/// Bytes of the structure that leads the arguments of an operation; what follows it is names and data.
/// 0 for what has none, and for what is not known.
pub(crate) fn args_bytes(operation: u32) -> usize {
    match operation {
        opcode::FORGET => size_of::<abi::ForgetIn>(),
        opcode::GETATTR => size_of::<abi::GetAttrIn>(),
        opcode::SETATTR => size_of::<abi::SetAttrIn>(),
        opcode::MKNOD => size_of::<abi::MakeNodeIn>(),
        opcode::MKDIR => size_of::<abi::MakeDirIn>(),
        opcode::RENAME => size_of::<abi::RenameIn>(),
        opcode::LINK => size_of::<abi::LinkIn>(),
        opcode::OPEN | opcode::OPENDIR => size_of::<abi::OpenIn>(),
        opcode::READ | opcode::READDIR | opcode::READDIRPLUS => size_of::<abi::ReadIn>(),
        opcode::WRITE => size_of::<abi::WriteIn>(),
        opcode::RELEASE | opcode::RELEASEDIR => size_of::<abi::ReleaseIn>(),
        opcode::FSYNC | opcode::FSYNCDIR => size_of::<abi::FsyncIn>(),
        opcode::SETXATTR => size_of::<abi::SetXattrIn>(),
        opcode::GETXATTR | opcode::LISTXATTR => size_of::<abi::GetXattrIn>(),
        opcode::FLUSH => size_of::<abi::FlushIn>(),
        opcode::GETLK | opcode::SETLK | opcode::SETLKW => size_of::<abi::LockIn>(),
        opcode::ACCESS => size_of::<abi::AccessIn>(),
        opcode::CREATE | opcode::TMPFILE => size_of::<abi::CreateIn>(),
        opcode::INTERRUPT => size_of::<abi::InterruptIn>(),
        opcode::IOCTL => size_of::<abi::IoctlIn>(),
        opcode::BATCH_FORGET => size_of::<abi::BatchForgetIn>(),
        opcode::FALLOCATE => size_of::<abi::AllocateIn>(),
        opcode::RENAME2 => size_of::<abi::Rename2In>(),
        opcode::LSEEK => size_of::<abi::SeekIn>(),
        opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => size_of::<abi::CopyRangeIn>(),
        opcode::STATX => size_of::<abi::StatxIn>(),
        _ => 0,
    }
}

/// `args`: at least [`args_bytes`]; `rest`: what follows them. The bytes of a write are only counted:
/// whoever has them puts them in.
pub(crate) fn decode(header: &InHeader, args: &[u8], rest: &[u8]) -> Result<Decoded, Malformed> {
    let message = Message { opcode: header.opcode, args, rest };
    match message.notice(header.inode)? {
        Some(notice) => Ok(Decoded::Notice(notice)),
        None => message.operation().map(Decoded::Operation),
    }
}

/// The parts of a message.
#[derive(Clone, Copy)]
struct Message<'a> {
    opcode: u32,
    args: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    fn notice(self, inode: u64) -> Result<Option<Notice>, Malformed> {
        Ok(Some(match self.opcode {
            opcode::FORGET => Notice::Forget(vec![(inode, self.args::<abi::ForgetIn>()?.lookups)]),
            opcode::BATCH_FORGET => {
                Notice::Forget(self.forgets(self.args::<abi::BatchForgetIn>()?.count as usize)?)
            }
            opcode::INTERRUPT => {
                Notice::Interrupt { unique: self.args::<abi::InterruptIn>()?.unique }
            }
            opcode::DESTROY => Notice::Destroy,
            _ => return Ok(None),
        }))
    }

    fn operation(self) -> Result<Operation, Malformed> {
        match self.opcode {
            opcode::LOOKUP
            | opcode::SYMLINK
            | opcode::MKNOD
            | opcode::MKDIR
            | opcode::UNLINK
            | opcode::RMDIR
            | opcode::RENAME
            | opcode::RENAME2
            | opcode::LINK
            | opcode::CREATE
            | opcode::TMPFILE => self.names(),
            opcode::SETXATTR | opcode::GETXATTR | opcode::LISTXATTR | opcode::REMOVEXATTR => {
                self.xattrs()
            }
            _ => self.objects(),
        }
    }

    fn names(self) -> Result<Operation, Malformed> {
        Ok(match self.opcode {
            opcode::LOOKUP => Operation::Lookup { name: self.name()? },
            opcode::UNLINK => Operation::Unlink { name: self.name()? },
            opcode::RMDIR => Operation::RemoveDir { name: self.name()? },
            opcode::SYMLINK => {
                let (name, target) = self.two_names()?;
                Operation::Symlink { name, target }
            }
            opcode::MKNOD => {
                let abi::MakeNodeIn { mode, rdev, umask, .. } = self.args()?;
                Operation::MakeNode { name: self.name()?, mode, rdev, umask }
            }
            opcode::MKDIR => {
                let abi::MakeDirIn { mode, umask } = self.args()?;
                Operation::MakeDir { name: self.name()?, mode, umask }
            }
            opcode::RENAME | opcode::RENAME2 => {
                let (new_parent, flags) = if self.opcode == opcode::RENAME {
                    (self.args::<abi::RenameIn>()?.new_parent, 0)
                } else {
                    let abi::Rename2In { new_parent, flags, .. } = self.args()?;
                    (new_parent, flags)
                };
                let (name, new_name) = self.two_names()?;
                Operation::Rename { name, new_parent, new_name, flags }
            }
            opcode::LINK => {
                let abi::LinkIn { inode } = self.args()?;
                Operation::Link { inode, name: self.name()? }
            }
            _ => {
                let abi::CreateIn { flags, mode, umask, .. } = self.args()?;
                let flags = flags.cast_signed();
                if self.opcode == opcode::TMPFILE {
                    Operation::TempFile { flags, mode, umask }
                } else {
                    Operation::Create { name: self.name()?, flags, mode, umask }
                }
            }
        })
    }

    fn xattrs(self) -> Result<Operation, Malformed> {
        Ok(match self.opcode {
            opcode::SETXATTR => {
                let abi::SetXattrIn { size, flags, .. } = self.args()?;
                let (name, value) = self.cut_name(self.rest)?;
                let value = self.counted(value, size)?.to_vec();
                Operation::SetXattr { name: name.to_vec(), value, flags: flags.cast_signed() }
            }
            opcode::GETXATTR => {
                let abi::GetXattrIn { size, .. } = self.args()?;
                Operation::GetXattr { name: self.name()?, size }
            }
            opcode::LISTXATTR => {
                Operation::ListXattr { size: self.args::<abi::GetXattrIn>()?.size }
            }
            _ => Operation::RemoveXattr { name: self.name()? },
        })
    }

    /// What concerns an inode or an open file.
    fn objects(self) -> Result<Operation, Malformed> {
        let by_handle = |flags: u32, handle| (flags & abi::GETATTR_HANDLE != 0).then_some(handle);
        Ok(match self.opcode {
            opcode::GETATTR => {
                let abi::GetAttrIn { flags, handle, .. } = self.args()?;
                Operation::GetAttr { handle: by_handle(flags, handle) }
            }
            opcode::STATX => {
                let abi::StatxIn { flags, handle, .. } = self.args()?;
                Operation::Statx { handle: by_handle(flags, handle) }
            }
            opcode::SETATTR => Operation::SetAttr(set_attr(&self.args()?)),
            opcode::READLINK => Operation::ReadLink,
            opcode::STATFS => Operation::StatFs,
            opcode::ACCESS => Operation::Access { mask: self.args::<abi::AccessIn>()?.mask },
            opcode::OPEN => {
                Operation::Open { flags: self.args::<abi::OpenIn>()?.flags.cast_signed() }
            }
            opcode::OPENDIR => Operation::OpenDir,
            opcode::READ => {
                let abi::ReadIn { handle, offset, size, .. } = self.args()?;
                Operation::Read(Read { handle, offset, size })
            }
            opcode::READDIR | opcode::READDIRPLUS => {
                let abi::ReadIn { handle, offset, size, .. } = self.args()?;
                let with_attributes = self.opcode == opcode::READDIRPLUS;
                Operation::ReadDir { handle, offset, size, with_attributes }
            }
            opcode::WRITE => Operation::Write(self.write()?),
            opcode::FLUSH => {
                let abi::FlushIn { handle, lock_owner, .. } = self.args()?;
                Operation::Flush { handle, lock_owner }
            }
            opcode::RELEASE | opcode::RELEASEDIR => {
                let abi::ReleaseIn { handle, .. } = self.args()?;
                if self.opcode == opcode::RELEASE {
                    Operation::Release { handle }
                } else {
                    Operation::ReleaseDir { handle }
                }
            }
            opcode::FSYNC => {
                let abi::FsyncIn { handle, flags, .. } = self.args()?;
                Operation::Fsync { handle, data_only: flags & abi::FSYNC_DATA != 0 }
            }
            opcode::FSYNCDIR => Operation::FsyncDir { handle: self.args::<abi::FsyncIn>()?.handle },
            opcode::GETLK => Operation::GetLock(lock(&self.args()?)),
            opcode::SETLK => Operation::SetLock { lock: lock(&self.args()?), wait: false },
            opcode::SETLKW => Operation::SetLock { lock: lock(&self.args()?), wait: true },
            opcode::FALLOCATE => {
                let abi::AllocateIn { handle, offset, length, mode, .. } = self.args()?;
                Operation::Allocate { handle, offset, length, mode: mode.cast_signed() }
            }
            opcode::LSEEK => {
                let abi::SeekIn { handle, offset, whence, .. } = self.args()?;
                Operation::Seek { handle, offset, whence }
            }
            opcode::COPY_FILE_RANGE => Operation::CopyRange(copy_range(&self.args()?)),
            opcode::IOCTL => {
                let abi::IoctlIn { handle, command, .. } = self.args()?;
                Operation::Ioctl { handle, command }
            }
            // COPY_FILE_RANGE_64 too: the kernel goes back to the one above.
            opcode => Operation::Unknown { opcode },
        })
    }

    fn args<T: FromBytes>(self) -> Result<T, Malformed> {
        let read = T::read_from_prefix(self.args).map(|(args, _)| args);
        read.map_err(|_| Malformed::ShortArguments {
            opcode: self.opcode,
            has: self.args.len(),
            needs: size_of::<T>(),
        })
    }

    fn name(self) -> Result<Vec<u8>, Malformed> {
        self.cut_name(self.rest).map(|(name, _)| name.to_vec())
    }

    fn two_names(self) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
        let (first, rest) = self.cut_name(self.rest)?;
        let (second, _) = self.cut_name(rest)?;
        Ok((first.to_vec(), second.to_vec()))
    }

    /// The bytes before the first NUL, and those behind it.
    fn cut_name(self, bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Malformed> {
        let end = bytes.iter().position(|byte| *byte == 0);
        let end = end.ok_or(Malformed::NameWithoutEnd { opcode: self.opcode })?;
        Ok((&bytes[..end], &bytes[end + 1..]))
    }

    fn counted(self, bytes: &'a [u8], says: u32) -> Result<&'a [u8], Malformed> {
        let (has, says) = (bytes.len(), says as usize);
        bytes.get(..says).ok_or(Malformed::WrongPayload { opcode: self.opcode, has, says })
    }

    fn write(self) -> Result<Write, Malformed> {
        let abi::WriteIn { handle, offset, size, write_flags, flags, .. } = self.args()?;
        self.counted(self.rest, size)?;
        let flags = flags.cast_signed();
        Ok(Write { handle, offset, how: write_flags, flags, payload: Payload::default() })
    }

    fn forgets(self, count: usize) -> Result<Vec<(u64, u64)>, Malformed> {
        const ONE: usize = size_of::<abi::ForgetOne>();
        let says = count.saturating_mul(ONE);
        let ones = self.counted(self.rest, u32::try_from(says).unwrap_or(u32::MAX))?;
        let one = |bytes| {
            let one = abi::ForgetOne::read_from_bytes(bytes).expect("a chunk of its size");
            (one.inode, one.lookups)
        };
        Ok(ones.chunks_exact(ONE).map(one).collect())
    }
}

fn set_attr(args: &abi::SetAttrIn) -> SetAttr {
    let has = |flag| args.valid & flag != 0;
    let time = |given, now, s: i64, ns: u32| {
        let at = SetTime::At(s.saturating_mul(1_000_000_000).saturating_add(i64::from(ns)));
        has(given).then_some(if has(now) { SetTime::Now } else { at })
    };
    SetAttr {
        handle: has(setattr::HANDLE).then_some(args.handle),
        mode: has(setattr::MODE).then_some(args.mode),
        uid: has(setattr::UID).then_some(args.uid),
        gid: has(setattr::GID).then_some(args.gid),
        size: has(setattr::SIZE).then_some(args.size),
        atime: time(setattr::ATIME, setattr::ATIME_NOW, args.atime, args.atime_ns),
        mtime: time(setattr::MTIME, setattr::MTIME_NOW, args.mtime, args.mtime_ns),
    }
}

fn lock(args: &abi::LockIn) -> Lock {
    Lock {
        handle: args.handle,
        owner: args.owner,
        start: args.start,
        end: args.end,
        kind: args.kind.cast_signed(),
        pid: args.pid,
        is_flock: args.lock_flags & abi::LOCK_IS_FLOCK != 0,
    }
}

fn copy_range(args: &abi::CopyRangeIn) -> CopyRange {
    CopyRange {
        handle_in: args.handle_in,
        offset_in: args.offset_in,
        inode_out: args.inode_out,
        handle_out: args.handle_out,
        offset_out: args.offset_out,
        length: args.length,
    }
}
