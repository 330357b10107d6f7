//! The kernel's requests: each finds its operation, and its outcome becomes a reply. Only the wiring is
//! here.

mod files;
mod locks;

use ff2_client::{InodeId, NodeKind};
use ff2_fuse_kernel::{Errno, Filesystem, Operation, Reply, Request};

use crate::{
    attr::node_kind,
    files::Directory,
    ops::{data, lock, name, open, xattr},
    requests::{Requests, Work},
};

impl Filesystem for Requests {
    fn request(&self, request: Request) {
        let Request { asker, inode, operation, interrupted, answer } = request;
        let at = &self.0;
        let inode = at.inode_meant(inode);
        match &operation {
            // What needs nobody is not a piece of work.
            Operation::Write(write) => {
                if let Some(count) = data::write_behind(at, write) {
                    return answer.send(Reply::written(count));
                }
            }
            // The kernel checked the permission; the namespace checks it again at each page.
            Operation::OpenDir => {
                let handle = at.directories.insert(Directory::new(inode, at.client.trust()));
                return answer.send(Reply::opened(handle, 0));
            }
            Operation::ReleaseDir { handle } => {
                at.directories.remove(*handle);
                return answer.send(Reply::empty());
            }
            Operation::Ioctl { .. } => return answer.send(Reply::error(Errno::ENOTTY)),
            // The kernel does without, and does not ask again.
            Operation::Seek { .. } | Operation::CopyRange(_) | Operation::Unknown { .. } => {
                return answer.send(Reply::error(Errno::ENOSYS));
            }
            _ => {}
        }
        let op = operation.name();
        let work = Work::begin(at.clone(), op, inode, asker, (interrupted, answer));
        self.serve(work, operation);
    }

    fn forget(&self, inode: u64, lookups: u64) {
        let inode = self.0.inode_meant(inode);
        if self.0.known.forget(inode, lookups) {
            drop(self.0.coherence.told.take(inode));
        }
    }
}

impl Requests {
    fn serve(&self, work: Work, operation: Operation) {
        let inode = work.inode;
        match operation {
            Operation::Lookup { name } => files::lookup(work, name),
            Operation::GetAttr { .. } => files::get_attr(work),
            Operation::Statx { .. } => files::statx(work),
            Operation::SetAttr(asked) => files::set_attr(work, asked),
            Operation::ReadLink => files::read_link(work),
            Operation::StatFs => files::stat_fs(work),
            Operation::Access { mask } => work
                .answer_empty(|_, caller| async move { caller.access(InodeId(inode), mask).await }),
            Operation::MakeNode { name, mode, rdev, umask } => {
                work.answer_entry(name, move |_, caller, place| async move {
                    let kind = node_kind(mode, rdev);
                    name::make(&caller.umask(umask), &place, kind, mode).await
                });
            }
            Operation::MakeDir { name, mode, umask } => {
                work.answer_entry(name, move |_, caller, place| async move {
                    let kind = Some(NodeKind::Directory);
                    name::make(&caller.umask(umask), &place, kind, mode).await
                });
            }
            Operation::Symlink { name, target } => {
                work.answer_entry(name, |_, caller, place| async move {
                    let kind = Some(NodeKind::Symlink { target });
                    name::make(&caller, &place, kind, 0o777).await
                });
            }
            Operation::Link { inode: of, name } => {
                let of = self.0.inode_meant(of);
                work.answer_entry(name, move |_, caller, place| async move {
                    caller.link(InodeId(of), InodeId(place.parent), &place.name).await
                });
            }
            Operation::Unlink { name } => work.answer_empty(|_, caller| async move {
                caller.unlink(InodeId(inode), &name, false).await
            }),
            Operation::RemoveDir { name } => work.answer_empty(|_, caller| async move {
                caller.unlink(InodeId(inode), &name, true).await
            }),
            Operation::Rename { name, new_parent, new_name, flags } => {
                let new_parent = self.0.inode_meant(new_parent);
                work.answer_empty(move |_, caller| async move {
                    name::rename(&caller, (inode, &name), (new_parent, &new_name), flags).await
                });
            }
            Operation::Open { flags } => files::open(work, flags),
            Operation::Create { name, flags, mode, umask } => {
                files::create(work, name, flags, (mode, umask));
            }
            Operation::TempFile { flags, mode, umask } => {
                files::create_unnamed(work, flags, (mode, umask));
            }
            Operation::Read(asked) => files::read(work, asked),
            Operation::Write(asked) => files::write(work, asked),
            Operation::Flush { handle, lock_owner } => {
                work.answer_empty(|at, caller| async move {
                    let flushed = open::file(&at, handle)?.flush().await;
                    // Also if the flush failed: who closed the file has no locks any more.
                    flushed.and(lock::flushed(&at, &caller, inode, lock_owner).await)
                });
            }
            Operation::Release { handle } => work.answer_empty(|at, caller| async move {
                let unlocked = lock::released(&at, &caller, inode, handle).await;
                open::release(&at, handle).await.and(unlocked)
            }),
            Operation::Fsync { handle, .. } => {
                work.answer_empty(|at, _| async move { open::file(&at, handle)?.fsync().await })
            }
            Operation::Allocate { handle, offset, length, mode } => {
                work.answer_empty(|at, _| async move {
                    data::allocate(&at, handle, offset, length, mode).await
                });
            }
            Operation::ReadDir { handle, offset, size, with_attributes } => {
                files::read_dir(work, (handle, offset), size, with_attributes);
            }
            Operation::SetXattr { name, value, flags } => {
                work.answer_empty(|at, caller| async move {
                    xattr::set(&at, &caller, inode, &name, &value, flags).await
                });
            }
            Operation::GetXattr { name, size } => files::get_xattr(work, name, size),
            Operation::ListXattr { size } => files::list_xattrs(work, size),
            Operation::RemoveXattr { name } => work.answer_empty(|at, caller| async move {
                xattr::remove(&at, &caller, inode, &name).await
            }),
            Operation::GetLock(asked) => locks::get(work, asked),
            Operation::SetLock { lock, wait } => locks::set(work, lock, wait),
            Operation::FsyncDir { .. } => {
                work.answer_empty(|at, _| async move { at.client.sync_names().await })
            }
            Operation::OpenDir
            | Operation::ReleaseDir { .. }
            | Operation::Ioctl { .. }
            | Operation::Seek { .. }
            | Operation::CopyRange(_)
            | Operation::Unknown { .. } => work.reply(Err(Errno::ENOSYS)),
        }
    }
}
