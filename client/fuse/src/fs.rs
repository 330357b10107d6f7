//! The kernel's requests: each becomes a task that replies. Only the wiring is here.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path, time::SystemTime};

use ff2_client::{InodeId, LockRange, NodeKind};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};

use crate::{
    attr::{Change, node_kind},
    files::Directory,
    listing::{list, list_plus},
    lock_flags::is_flock,
    ops::{
        data, entry,
        lock::{self, Asked},
        name, open, xattr,
    },
    requests::{Place, Requests, shortest},
    tune,
};

impl Filesystem for Requests {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        tune::negotiate(config);
        Ok(())
    }

    // ---- entries and attributes ----

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = self.0.inode_meant(parent);
        let place = Place::new(parent, name);
        let work = self.work("lookup", parent, request);
        self.answer_entry(work, place, reply, move |_, caller, place| async move {
            caller.find(InodeId(place.parent), &place.name).await
        });
    }

    fn forget(&self, _request: &Request, inode: INodeNo, lookups: u64) {
        let inode = self.0.inode_meant(inode);
        if self.0.known.forget(inode.0, lookups) {
            drop(self.0.coherence.told.take(inode.0));
        }
    }

    fn getattr(
        &self,
        request: &Request,
        inode: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let inode = self.0.inode_meant(inode);
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
        let inode = self.0.inode_meant(inode);
        let change = Change { mode, uid, gid, size, atime, mtime };
        let work = self.work("setattr", inode, request);
        self.answer_attr(work, reply, move |at, caller| async move {
            entry::setattr(&at, &caller, inode.0, change, handle.map(|handle| handle.0)).await
        });
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        let inode = self.0.inode_meant(inode);
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
        let inode = self.0.inode_meant(inode);
        let work = self.work("access", inode, request);
        self.answer_empty(work, reply, move |_, caller| async move {
            caller.access(InodeId(inode.0), mask.bits() as u32).await
        });
    }

    fn statfs(&self, request: &Request, inode: INodeNo, reply: ReplyStatfs) {
        let inode = self.0.inode_meant(inode);
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
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let parent = self.0.inode_meant(parent);
        let place = Place::new(parent, name);
        let work = self.work("mknod", parent, request);
        self.answer_entry(work, place, reply, move |_, caller, place| async move {
            let kind = node_kind(mode, rdev);
            name::make(&caller.umask(umask), &place, kind, mode).await.map(Some)
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let parent = self.0.inode_meant(parent);
        let place = Place::new(parent, name);
        let work = self.work("mkdir", parent, request);
        self.answer_entry(work, place, reply, move |_, caller, place| async move {
            let kind = Some(NodeKind::Directory);
            name::make(&caller.umask(umask), &place, kind, mode).await.map(Some)
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
        let parent = self.0.inode_meant(parent);
        let place = Place::new(parent, link_name);
        let kind = NodeKind::Symlink { target: target.as_os_str().as_bytes().to_vec() };
        let work = self.work("symlink", parent, request);
        self.answer_entry(work, place, reply, move |_, caller, place| async move {
            name::make(&caller, &place, Some(kind), 0o777).await.map(Some)
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
        let inode = self.0.inode_meant(inode);
        let new_parent = self.0.inode_meant(new_parent);
        let place = Place::new(new_parent, new_name);
        let work = self.work("link", inode, request);
        self.answer_entry(work, place, reply, move |_, caller, place| async move {
            caller.link(InodeId(inode.0), InodeId(place.parent), &place.name).await.map(Some)
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let parent = self.0.inode_meant(parent);
        let name = name.as_bytes().to_vec();
        let work = self.work("unlink", parent, request);
        self.answer_empty(work, reply, move |_, caller| async move {
            caller.unlink(InodeId(parent.0), &name, false).await
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let parent = self.0.inode_meant(parent);
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
        let parent = self.0.inode_meant(parent);
        let new_parent = self.0.inode_meant(new_parent);
        let (name, new_name) = (name.as_bytes().to_vec(), new_name.as_bytes().to_vec());
        let work = self.work("rename", parent, request);
        self.answer_empty(work, reply, move |_, caller| async move {
            name::rename(&caller, (parent.0, &name), (new_parent.0, &new_name), flags).await
        });
    }

    // ---- files ----

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let inode = self.0.inode_meant(inode);
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
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let parent = self.0.inode_meant(parent);
        let place = Place::new(parent, name);
        let work = self.work("create", parent, request);
        self.spawn(async move {
            let (caller, at) = (work.caller().umask(umask), place.clone());
            let create = async move { open::create(&caller, &at, mode, OpenFlags(flags)).await };
            match work.run_to_the_end(create).await {
                Ok(made) => {
                    let (told, ttls) = work.entry(&place, &made.attr);
                    work.at.known.written(made.attr.inode);
                    reply.created(
                        &shortest(ttls),
                        &told,
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
        let inode = self.0.inode_meant(inode);
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
        let inode = self.0.inode_meant(inode);
        if let Some(count) = data::write_behind(&self.0, handle.0, offset, bytes, how, flags) {
            return reply.written(count);
        }
        let work = self.work("write", inode, request);
        let bytes = self.0.copies.copy(&self.0.runtime, bytes);
        self.spawn(async move {
            let (at, caller) = (work.at.clone(), work.caller());
            let write =
                async move { data::write(at, &caller, handle.0, offset, bytes, how, flags).await };
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
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let inode = self.0.inode_meant(inode);
        let work = self.work("flush", inode, request);
        self.answer_empty(work, reply, move |at, caller| async move {
            let flushed = open::file(&at, handle.0)?.flush().await;
            // Also if the flush failed: who closed the file has no locks any more.
            flushed.and(lock::flushed(&at, &caller, inode.0, lock_owner.0).await)
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
        let inode = self.0.inode_meant(inode);
        let work = self.work("release", inode, request);
        self.answer_empty(work, reply, move |at, caller| async move {
            let unlocked = lock::released(&at, &caller, inode.0, handle.0).await;
            open::release(&at, handle.0).await.and(unlocked)
        });
    }

    fn fsync(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let inode = self.0.inode_meant(inode);
        let work = self.work("fsync", inode, request);
        self.answer_empty(work, reply, move |at, _| async move {
            open::file(&at, handle.0)?.fsync().await
        });
    }

    // ---- directories ----

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let inode = self.0.inode_meant(inode);
        // The kernel checked the permission; the namespace checks it again at each page.
        let handle = self.0.directories.insert(Directory::new(inode.0, self.0.client.trust()));
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
        let inode = self.0.inode_meant(inode);
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
        let inode = self.0.inode_meant(inode);
        let work = self.work("readdirplus", inode, request);
        self.spawn(async move {
            match work.run(list_plus(&work, inode, handle.0, offset, &mut reply)).await {
                Ok(()) => {
                    reply.ok();
                    work.at.answered(&work.trust, work.at.ttl);
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

    // ---- extended attributes ----

    fn setxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let inode = self.0.inode_meant(inode);
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        let work = self.work("setxattr", inode, request);
        self.answer_empty(work, reply, move |at, caller| async move {
            xattr::set(&at, &caller, inode.0, &name, &value, flags).await
        });
    }

    fn getxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let inode = self.0.inode_meant(inode);
        let name = name.as_bytes().to_vec();
        let work = self.work("getxattr", inode, request);
        self.spawn(async move {
            let caller = work.caller();
            let value = work.run(xattr::get(&work.at, &caller, inode.0, &name)).await;
            answer_xattr(reply, value, size);
        });
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let inode = self.0.inode_meant(inode);
        let work = self.work("listxattr", inode, request);
        self.spawn(async move {
            let caller = work.caller();
            let names = work.run(xattr::list(&work.at, &caller, inode.0)).await;
            answer_xattr(reply, names, size);
        });
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let inode = self.0.inode_meant(inode);
        let name = name.as_bytes().to_vec();
        let work = self.work("removexattr", inode, request);
        self.answer_empty(work, reply, move |at, caller| async move {
            xattr::remove(&at, &caller, inode.0, &name).await
        });
    }

    // ---- locks ----

    fn getlk(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let inode = self.0.inode_meant(inode);
        let asked = lock_asked(request, inode, handle, owner, (start, end), kind, pid);
        let work = self.work("getlk", inode, request);
        self.spawn(async move {
            match work.run(lock::get(&work.caller(), asked)).await {
                Ok(None) => reply.locked(start, end, libc::F_UNLCK, 0),
                Ok(Some(lock)) => {
                    let kind = if lock.exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
                    reply.locked(lock.start, lock::end_for_kernel(lock.end), kind, lock.pid);
                }
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn setlk(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        wait: bool,
        reply: ReplyEmpty,
    ) {
        let inode = self.0.inode_meant(inode);
        let asked = lock_asked(request, inode, handle, owner, (start, end), kind, pid);
        let work = self.work("setlk", inode, request);
        if kind == libc::F_UNLCK {
            self.answer_empty(work, reply, move |at, caller| async move {
                lock::unlock(&at, &caller, asked).await
            });
            return;
        }
        self.spawn(async move {
            match work.lock(asked, wait).await {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    // ---- not served: the kernel does without, and does not ask again ----

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
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let inode = self.0.inode_meant(inode);
        let work = self.work("fallocate", inode, request);
        self.answer_empty(work, reply, move |at, _| async move {
            data::allocate(&at, handle.0, offset, length, mode).await
        });
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

/// A buffer of size 0 asks how large it must be.
fn answer_xattr(reply: ReplyXattr, value: Result<Vec<u8>, Errno>, size: u32) {
    match value {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(errno) => reply.error(errno),
    }
}

fn lock_asked(
    request: &Request,
    inode: INodeNo,
    handle: FileHandle,
    owner: LockOwner,
    (start, end): (u64, u64),
    kind: i32,
    pid: u32,
) -> Asked {
    let range = LockRange {
        flock: is_flock(request),
        owner: owner.0,
        exclusive: kind == libc::F_WRLCK,
        start,
        end: lock::end_from_kernel(end),
        pid,
    };
    Asked { inode: inode.0, handle: handle.0, range }
}
