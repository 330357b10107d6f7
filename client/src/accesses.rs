//! Access times: a read is told to the namespace some seconds later, with others, and waits for nothing.

use std::{sync::Arc, time::Instant};

use ff2_client_core::Accesses;
use ff2_proto::{InodeId, pb, pb::ns_request::Op, relatime};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    client::Shared,
    inodes::{OpenInode, now_ns},
    limits,
};

/// What was read and is not told yet.
#[derive(Debug, Default)]
pub(crate) struct AccessTimes {
    accesses: Mutex<Accesses>,
    noted: Notify,
    /// Held while some are on their way.
    telling: tokio::sync::Mutex<()>,
}

impl AccessTimes {
    pub(crate) fn overlay(&self, attr: &mut pb::Attr) {
        self.accesses.lock().overlay(attr);
    }
}

impl Shared {
    /// Bytes of an open file were read. True if that changes its access time.
    pub(crate) fn accessed(&self, open: &OpenInode, cred: &pb::Credentials) -> bool {
        let at_ns = now_ns();
        self.options.atime
            && open.if_atime_is_due(at_ns).is_some_and(|attr| self.note_access(&attr, at_ns, cred))
    }

    /// What has these attributes was read, and is not a file: its names, or where it leads to.
    pub(crate) fn looked_into(&self, attr: &pb::Attr, cred: &pb::Credentials) {
        let at_ns = now_ns();
        if self.options.atime && attr.snapshot == 0 && relatime::is_due(attr, at_ns) {
            self.note_access(attr, at_ns, cred);
        }
    }

    fn note_access(&self, attr: &pb::Attr, at_ns: i64, cred: &pb::Credentials) -> bool {
        let is_news = self.access_times.accesses.lock().note(attr, at_ns, cred);
        if is_news {
            self.access_times.noted.notify_one();
            self.journal.accessed(InodeId(attr.inode), at_ns);
        }
        is_news
    }

    /// Before a program chooses the access time: reads until now do not change it afterwards.
    pub(crate) async fn forget_access(&self, inode: InodeId) {
        let is_told = self.access_times.accesses.lock().forget(inode);
        if is_told {
            let _arrived = self.access_times.telling.lock().await;
        }
    }

    /// Tells the namespace. What it does not take now is not told again: it is no more than an access time.
    pub(crate) async fn tell_accesses(&self) {
        let times = &self.access_times;
        let _one = times.telling.lock().await;
        loop {
            let next = times.accesses.lock().take();
            let Some((cred, op)) = next else { return };
            let deadline = Instant::now() + limits::ACCESS_PATIENCE;
            let outcome = self.session.mutate_once(&cred, Op::TouchAtime(op), deadline).await;
            times.accesses.lock().arrived();
            if let Err(failure) = outcome {
                tracing::debug!(%failure, "access times are not kept");
                return;
            }
        }
    }
}

/// The teller. As the session's tasks it holds no reference between two rounds.
pub(crate) fn start(shared: &Arc<Shared>) -> JoinHandle<()> {
    let (weak, times) = (Arc::downgrade(shared), shared.access_times.clone());
    tokio::spawn(async move {
        loop {
            times.noted.notified().await;
            tokio::time::sleep(limits::ACCESS_LINGER).await;
            let Some(shared) = weak.upgrade() else { return };
            shared.tell_accesses().await;
        }
    })
}
