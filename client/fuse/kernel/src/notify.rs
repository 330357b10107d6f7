//! What the kernel is told without having asked: to forget what it cached.
//!
//! The calls wait for locks of the kernel's, which a request in progress may hold: they must not run on
//! a thread that serves requests, except where it says so.

use std::{io, sync::Arc};

use zerocopy::IntoBytes;

use crate::{abi, abi::notify, device::Device};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Notifier {
    device: Arc<Device>,
}

impl Notifier {
    pub(crate) fn new(device: Arc<Device>) -> Self {
        Self { device }
    }

    /// Drops an inode's attributes; its next use asks for them. Waits for nobody. ENOENT: the kernel does
    /// not know the inode.
    pub fn forget_attr(&self, inode: u64) -> io::Result<()> {
        self.inval_inode(inode, -1, 0)
    }

    /// Drops attributes, and pages from `offset` for `length` bytes, 0 for all. Waits for reads of these
    /// pages and for their writing back.
    pub fn forget_pages(&self, inode: u64, offset: u64, length: u64) -> io::Result<()> {
        let number = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.inval_inode(inode, number(offset), number(length))
    }

    fn inval_inode(&self, inode: u64, offset: i64, length: i64) -> io::Result<()> {
        let out = abi::InvalInodeOut { inode, offset, length };
        self.device.notify(notify::INVAL_INODE, &[out.as_bytes()])
    }

    /// Drops what the kernel knows of a name, also that there is none. Waits for changes in the folder.
    pub fn forget_entry(&self, parent: u64, name: &[u8]) -> io::Result<()> {
        let out = abi::InvalEntryOut { parent, name_bytes: name_bytes(name)?, flags: 0 };
        self.device.notify(notify::INVAL_ENTRY, &[out.as_bytes(), name, b"\0"])
    }

    /// Drops all names of the mount, also of answers on their way: each is looked up when it is used again.
    /// Waits for nobody. Since Linux 6.16; before, EINVAL.
    pub fn forget_names(&self) -> io::Result<()> {
        self.device.notify(notify::INC_EPOCH, &[])
    }

    /// A name of this inode is gone: who has the folder open sees it leave. Waits as
    /// [`Notifier::forget_entry`].
    pub fn deleted(&self, parent: u64, inode: u64, name: &[u8]) -> io::Result<()> {
        let name_bytes = name_bytes(name)?;
        let out = abi::DeleteOut { parent, child: inode, name_bytes, padding: 0 };
        self.device.notify(notify::DELETE, &[out.as_bytes(), name, b"\0"])
    }

    /// Puts bytes into the page cache. Waits as [`Notifier::forget_pages`].
    pub fn store(&self, inode: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let size = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let out = abi::StoreOut { inode, offset, size, padding: 0 };
        self.device.notify(notify::STORE, &[out.as_bytes(), bytes])
    }
}

fn name_bytes(name: &[u8]) -> io::Result<u32> {
    let is_name = !name.is_empty() && !name.contains(&0);
    let len = u32::try_from(name.len()).ok().filter(|_| is_name);
    len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "this is no name"))
}
