//! What all requests of a mount share.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use ff2_client::{Client, InodeId, Trust, pb};
use ff2_daemon::Operations;
use ff2_fuse_kernel::{Attr, Entry, Notifier, ROOT, Space};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio_util::task::TaskTracker;

use crate::{
    attr::kernel_attr,
    coherence::Coherence,
    files::{Directories, Files},
    known::Known,
    lock_owners::LockOwners,
    requests::Place,
    rings::Rings,
    who::Groups,
};

/// Bytes that went through the mount.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) read_bytes: Counter,
    pub(crate) written_bytes: Counter,
}

/// What all requests of a mount share.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) client: Client,
    /// The folder that is the root of the mount: the kernel calls it 1.
    pub(crate) root: InodeId,
    /// The token may speak for every user of this host; else everything is done as its own user.
    pub(crate) for_all_users: bool,
    /// How long the kernel may trust what it is told, at most.
    pub(crate) ttl: Duration,
    /// Nothing is kept but what the namespace promised to tell before it changes.
    pub(crate) is_coherent: bool,
    pub(crate) coherence: Coherence,
    pub(crate) files: Files,
    pub(crate) directories: Directories,
    pub(crate) known: Known,
    pub(crate) lock_owners: LockOwners,
    pub(crate) groups: Groups,
    pub(crate) operations: Operations,
    pub(crate) traffic: Traffic,
    pub(crate) requests: TaskTracker,
    pub(crate) rings: Rings,
    /// What the namespace said last, for when it says nothing.
    pub(crate) last: Mutex<Last>,
    /// To the kernel, once the mount stands.
    pub(crate) notifier: OnceLock<Notifier>,
}

/// See [`crate::limits::ROOT_PATIENCE`].
#[derive(Debug, Default)]
pub(crate) struct Last {
    pub(crate) root: Option<pb::Attr>,
    pub(crate) space: Option<Space>,
}

impl Mounted {
    /// The inode that the kernel means.
    pub(crate) fn inode_meant(&self, inode: u64) -> u64 {
        if inode == ROOT { self.root.0 } else { inode }
    }

    /// What the kernel calls an inode.
    pub(crate) fn for_kernel(&self, inode: u64) -> u64 {
        if inode == self.root.0 { ROOT } else { inode }
    }

    /// Attributes for the kernel, and for how long it may keep them.
    pub(crate) fn tell(&self, attr: &pb::Attr, trust: &Trust) -> (Attr, Duration) {
        let now = Instant::now();
        // Noted before the look at the trust: what is invalidated between is dropped here and there.
        self.known.told(attr.inode, attr.version, attr.extras, now + self.ttl);
        let inode = InodeId(attr.inode);
        // Which extended attributes there are does not change by writing here.
        self.known.trusted_until(attr.inode, now + self.ttl_within(trust.lasts(inode)));
        let ttl = self.ttl_within(trust.attr_of(inode));
        (Attr { inode: self.for_kernel(attr.inode), ..kernel_attr(attr) }, ttl)
    }

    /// An entry for the kernel, which takes a reference to the inode by it.
    pub(crate) fn tell_entry(&self, trust: &Trust, place: &Place, attr: &pb::Attr) -> Entry {
        let is_directory = attr.kind() == pb::FileKind::Directory;
        self.coherence.told.note(place.parent, &place.name, is_directory);
        Entry { name_ttl: self.entry_ttl(trust, place.parent), ..self.tell_unnamed(trust, attr) }
    }

    /// As [`Mounted::tell_entry`], of a file that has no name.
    pub(crate) fn tell_unnamed(&self, trust: &Trust, attr: &pb::Attr) -> Entry {
        self.known.looked_up(attr.inode);
        let generation = attr.generation;
        let (attr, attr_ttl) = self.tell(attr, trust);
        Entry { attr, generation, name_ttl: Duration::ZERO, attr_ttl }
    }

    /// Makes the kernel forget an inode's pages and attributes. It waits for pages that are being read,
    /// so it must not hold up the tasks that read them.
    pub(crate) async fn drop_pages(&self, inode: u64) {
        self.drop_some_pages(inode, 0, 0).await;
    }

    /// As [`Mounted::drop_pages`], of a range; of no length: to the end.
    pub(crate) async fn drop_some_pages(&self, inode: u64, offset: u64, length: u64) {
        let Some(notifier) = self.notifier.get().cloned() else { return };
        let known_as = self.for_kernel(inode);
        let drop = move || notifier.forget_pages(known_as, offset, length);
        match tokio::task::spawn_blocking(drop).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(inode, %error, "the kernel keeps its pages"),
            Err(error) => tracing::debug!(inode, %error, "the kernel keeps its pages"),
        }
    }

    /// Makes the kernel ask for an inode's attributes again.
    pub(crate) fn drop_attr(&self, inode: u64) {
        let Some(notifier) = self.notifier.get() else { return };
        // No pages, which an open may hold locked.
        if let Err(error) = notifier.forget_attr(self.for_kernel(inode)) {
            tracing::debug!(inode, %error, "the kernel keeps its attributes until they age");
        }
    }
}
