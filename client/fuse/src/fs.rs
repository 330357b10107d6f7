//! The kernel's requests: each becomes a task that replies. Only the wiring is here.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path, time::SystemTime};

use ff2_client::{InodeId, NodeKind};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::{
    attr::{Change, node_kind},
    files::Directory,
    listing::{list, list_plus},
    ops::{data, entry, name, open},
    requests::Requests,
    tune,
};

impl Filesystem for Requests {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        tune::negotiate(config);
        Ok(())
    }

    // ---- entries and attributes ----

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        let work = self.work("lookup", parent, request);
        self.answer_entry(work, reply, move |_, caller| async move {
            entry::lookup(&caller, parent.0, &name).await
        });
    }

    fn forget(&self, _request: &Request, inode: INodeNo, lookups: u64) {
        self.0.known.forget(inode.0, lookups);
    }

    fn getattr(
        &self,
        request: &Request,
        inode: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let work = self.work("getattr", inode, request);
        self.answer_attr(work, reply, move |at, caller| async move {
            entry::getattr(&at, &caller, inode.0).await
        });
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change { mode, uid, gid, size, atime, mtime };
        let work = self.work("setattr", inode, request);
        self.answer_attr(work, reply, move |at, caller| async move {
            entry::setattr(&at, &caller, inode.0, change, handle.map(|handle| handle.0)).await
        });
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        let work = self.work("readlink", inode, request);
        self.spawn(async move {
            let caller = work.caller();
            match work.run(caller.read_link(InodeId(inode.0))).await {
                Ok(target) => reply.data(&target),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn access(&self, request: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let work = self.work("access", inode, request);
        self.answer_empty(work, reply, move |_, caller| async move {
            caller.access(InodeId(inode.0), mask.bits() as u32).await
        });
    }

    fn statfs(&self, request: &Request, inode: INodeNo, reply: ReplyStatfs) {
        let work = self.work("statfs", inode, request);
        self.spawn(async move {
            let outcome = work.run(entry::statfs(&work.at, &work.caller())).await;
            let block = entry::SPACE_BLOCK;
            let name_max = ff2_proto::limits::NAME_BYTES_MAX as u32;
            match outcome {
                Ok(space) => reply.statfs(
                    space.blocks,
                    space.free,
                    space.free,
                    space.files,
                    space.free_files,
                    block,
                    name_max,
                    block,
                ),
                Err(errno) => reply.error(errno),
            }
        });
    }

    // ---- names ----

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let name = name.as_bytes().to_vec();
        let work = self.work("mknod", parent, request);
        self.answer_entry(work, reply, move |_, caller| async move {
            let kind = node_kind(mode, rdev);
            name::make(&caller, parent.0, &name, kind, mode).await.map(Some)
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let name = name.as_bytes().to_vec();
        let work = self.work("mkdir", parent, request);
        self.answer_entry(work, reply, move |_, caller| async move {
            let kind = Some(NodeKind::Directory);
            name::make(&caller, parent.0, &name, kind, mode).await.map(Some)
        });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let name = link_name.as_bytes().to_vec();
        let kind = NodeKind::Symlink { target: target.as_os_str().as_bytes().to_vec() };
        let work = self.work("symlink", parent, request);
        self.answer_entry(work, reply, move |_, caller| async move {
            name::make(&caller, parent.0, &name, Some(kind), 0o777).await.map(Some)
        });
    }

    fn link(
        &self,
        request: &Request,
        inode: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let name = new_name.as_bytes().to_vec();
        let work = self.work("link", inode, request);
        self.answer_entry(work, reply, move |_, caller| async move {
            caller.link(InodeId(inode.0), InodeId(new_parent.0), &name).await.map(Some)
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        let work = self.work("unlink", parent, request);
        self.answer_empty(work, reply, move |_, caller| async move {
            caller.unlink(InodeId(parent.0), &name, false).await
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        let work = self.work("rmdir", parent, request);
        self.answer_empty(work, reply, move |_, caller| async move {
            caller.unlink(InodeId(parent.0), &name, true).await
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, new_name) = (name.as_bytes().to_vec(), new_name.as_bytes().to_vec());
        let work = self.work("rename", parent, request);
        self.answer_empty(work, reply, move |_, caller| async move {
            name::rename(&caller, (parent.0, &name), (new_parent.0, &new_name), flags).await
        });
    }

    // ---- files ----

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let work = self.work("open", inode, request);
        self.spawn(async move {
            let (at, caller) = (work.at.clone(), work.caller());
            let open = async move { open::open(&at, &caller, inode.0, flags).await };
            match work.run_to_the_end(open).await {
                Ok(opened) => {
                    let handle = work.at.files.insert(opened.file);
                    reply.opened(FileHandle(handle), opened.flags);
                    work.at.known.has_pages(inode.0, opened.pages);
                }
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let name = name.as_bytes().to_vec();
        let work = self.work("create", parent, request);
        self.spawn(async move {
            let caller = work.caller();
            let create =
                async move { open::create(&caller, parent.0, &name, mode, OpenFlags(flags)).await };
            match work.run_to_the_end(create).await {
                Ok(made) => {
                    work.at.known.looked_up(made.attr.inode);
                    work.at.known.written(made.attr.inode);
                    reply.created(
                        &work.at.ttl,
                        &work.at.tell(&made.attr),
                        Generation(made.attr.generation),
                        FileHandle(work.at.files.insert(made.file)),
                        made.flags,
                    );
                }
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn read(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let work = self.work("read", inode, request);
        self.spawn(async move {
            match work.run(data::read(&work.at, handle.0, offset, size)).await {
                Ok(bytes) => reply.data(&bytes),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        how: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if let Some(count) = data::write_behind(&self.0, handle.0, offset, bytes, how, flags) {
            return reply.written(count);
        }
        let work = self.work("write", inode, request);
        let bytes = self.0.copies.copy(&self.0.runtime, bytes);
        self.spawn(async move {
            let write = data::write(work.at.clone(), handle.0, offset, bytes, how, flags);
            match work.run_to_the_end(write).await {
                Ok(count) => reply.written(count),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn flush(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let work = self.work("flush", inode, request);
        self.answer_empty(work, reply, move |at, _| async move {
            open::file(&at, handle.0)?.flush().await
        });
    }

    fn release(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let work = self.work("release", inode, request);
        self.answer_empty(
            work,
            reply,
            move |at, _| async move { open::release(&at, handle.0).await },
        );
    }

    fn fsync(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let work = self.work("fsync", inode, request);
        self.answer_empty(work, reply, move |at, _| async move {
            open::file(&at, handle.0)?.fsync().await
        });
    }

    // ---- directories ----

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // The kernel checked the permission; the namespace checks it again at each page.
        let handle = self.0.directories.insert(Directory::new(inode.0));
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let work = self.work("readdir", inode, request);
        self.spawn(async move {
            match work.run(list(&work, inode, handle.0, offset, &mut reply)).await {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let work = self.work("readdirplus", inode, request);
        self.spawn(async move {
            match work.run(list_plus(&work, inode, handle.0, offset, &mut reply)).await {
                Ok(listed) => {
                    for attr in listed {
                        work.at.known.looked_up(attr.inode);
                        work.at.known.told(attr.inode, attr.version);
                    }
                    reply.ok();
                }
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.0.directories.remove(handle.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        // A change of the namespace is durable when it is answered.
        reply.ok();
    }

    // ---- not served: the kernel does without, and does not ask again ----

    fn setxattr(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _inode_in: INodeNo,
        _handle_in: FileHandle,
        _offset_in: u64,
        _inode_out: INodeNo,
        _handle_out: FileHandle,
        _offset_out: u64,
        _length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }
}
