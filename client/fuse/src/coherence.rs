//! Lets go of what another mount is about to change: the namespace waits for it.
//!
//! The library has dropped its own promises before it comes here, so answers that are decided from now on
//! are not kept; those decided before are on their way to the kernel, or in it. What each notice makes
//! of them:
//!
//! - *Attributes*: the kernel drops answers that were asked for before the notice. Of an inode that it is
//!   just being told of it says that there is none: it is told again.
//! - *Names*: it takes the directory's lock, and so comes after a lookup in progress. But an operation of
//!   our own in that directory, which holds the lock, may itself wait for a mount that waits for us. So
//!   nobody waits long: then all entries of the mount are dropped, for which no lock is needed. A kernel
//!   that cannot do that (before 6.16) is told to keep no names at all.
//! - *Pages*: it waits for those that are being read. The kernel asks for attributes before it uses a page
//!   for `read(2)`, and drops the pages of another time of change, so this may go on behind.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ff2_client::{InodeId, Invalidations, Trust};
use tokio::time::timeout;

use crate::{
    limits,
    mounted::Mounted,
    told::{Names, Told},
};

/// What the mount knows of the kernel's caches.
#[derive(Debug, Default)]
pub(crate) struct Coherence {
    pub(crate) told: Told,
    /// The kernel can drop all entries at once. False until it did.
    has_epochs: AtomicBool,
}

impl Mounted {
    /// For how long the kernel may keep a name. Note the name before.
    pub(crate) fn entry_ttl(&self, trust: &Trust, directory: u64) -> Duration {
        if self.is_coherent && !self.coherence.has_epochs.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        self.ttl_within(trust.lasts(InodeId(directory)))
    }

    /// What the kernel is told of a time that was trusted.
    pub(crate) fn ttl_within(&self, trusted: Duration) -> Duration {
        let margin = if self.is_coherent { limits::TTL_MARGIN } else { Duration::ZERO };
        trusted.saturating_sub(margin).min(self.ttl)
    }

    /// The kernel has an answer that it was to keep for a while. If this process stood still before it gave
    /// it, the time was over by then.
    pub(crate) fn answered(self: &Arc<Self>, trust: &Trust, ttl: Duration) {
        if ttl.is_zero() || !trust.is_over() {
            return;
        }
        tracing::info!("an answer was late: the kernel drops what it keeps");
        self.drop_all_entries();
        let at = self.clone();
        self.requests.spawn(async move { drop_all(&at).await });
    }

    fn drop_all_entries(&self) -> bool {
        let Some(notifier) = self.notifier.get() else { return false };
        let outcome = notifier.forget_names();
        self.coherence.has_epochs.store(outcome.is_ok(), Ordering::Release);
        if let Err(error) = &outcome {
            tracing::info!(%error, "this kernel cannot drop all names at once: it keeps none");
        }
        outcome.is_ok()
    }

    /// Drops attributes; an inode that the kernel is just being told of is waited for.
    fn drop_attr_surely(&self, inode: u64) {
        let Some(notifier) = self.notifier.get() else { return };
        self.known.invalidated(inode);
        let begun = Instant::now();
        loop {
            match notifier.forget_attr(self.for_kernel(inode)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.known.has(inode) => {
                    if begun.elapsed() > limits::INSTANTIATION {
                        return;
                    }
                    std::thread::sleep(limits::INSTANTIATION / 100);
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(inode, %error, "the kernel keeps its attributes until they age");
                    return;
                }
                Ok(()) | Err(_) => return,
            }
        }
    }

    fn drop_names(&self, directory: u64, names: &Names) {
        let Some(notifier) = self.notifier.get() else { return };
        match names {
            Names::All => drop(self.drop_all_entries()),
            Names::Each(names) => {
                let known_as = self.for_kernel(directory);
                for name in names {
                    // Mostly the kernel has dropped it already.
                    let _ = notifier.forget_entry(known_as, name);
                }
            }
        }
    }
}

/// Handles invalidations until the client is closed.
pub(crate) async fn serve(at: Arc<Mounted>, mut invalidations: Invalidations) {
    while let Some(invalidation) = invalidations.next().await {
        match &invalidation.inodes {
            Some(inodes) => drop_some(&at, inodes).await,
            None => drop_all(&at).await,
        }
        invalidation.done();
    }
}

async fn drop_some(at: &Arc<Mounted>, inodes: &[InodeId]) {
    let inodes: Vec<u64> = inodes.iter().map(|inode| inode.0).collect();
    let attributes = {
        let (at, inodes) = (at.clone(), inodes.clone());
        move || inodes.iter().for_each(|inode| at.drop_attr_surely(*inode))
    };
    behind(attributes).await;
    let names: Vec<(u64, Names)> = inodes
        .iter()
        .filter_map(|directory| Some((*directory, at.coherence.told.take(*directory)?)))
        .collect();
    if !names.is_empty() {
        let dropping = {
            let at = at.clone();
            move || names.iter().for_each(|(directory, names)| at.drop_names(*directory, names))
        };
        if timeout(limits::NAMES_PATIENCE, behind(dropping)).await.is_err() {
            at.drop_all_entries();
        }
    }
    let pages: Vec<u64> =
        inodes.into_iter().filter(|inode| at.known.may_have_pages(*inode)).collect();
    if !pages.is_empty() {
        let dropping = {
            let at = at.clone();
            move || {
                let Some(notifier) = at.notifier.get() else { return };
                for inode in pages {
                    let _ = notifier.forget_pages(at.for_kernel(inode), 0, 0);
                }
            }
        };
        let _ = timeout(limits::PAGES_PATIENCE, behind(dropping)).await;
    }
}

/// The leader is another, or knows nothing of this mount any more.
async fn drop_all(at: &Arc<Mounted>) {
    at.coherence.told.clear();
    at.drop_all_entries();
    let dropping = {
        let at = at.clone();
        move || at.known.inodes().into_iter().for_each(|inode| at.drop_attr_surely(inode))
    };
    behind(dropping).await;
}

/// On a thread that may wait for the kernel; it goes on if nobody waits for it.
async fn behind(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::warn!(%error, "the kernel's caches were not dropped");
    }
}
