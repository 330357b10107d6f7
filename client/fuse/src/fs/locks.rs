//! Requests for locks.

use ff2_client::LockRange;
use ff2_fuse_kernel::{Lock, Reply};

use crate::{
    ops::lock::{self, Asked},
    requests::Work,
};

pub(super) fn get(work: Work, asked: Lock) {
    let meant = meant(&work, asked);
    work.spawn(move |work| async move {
        let found = work.run(lock::get(&work.caller(), meant)).await;
        let outcome = found.map(|found| match found {
            None => Reply::lock(asked.start, asked.end, libc::F_UNLCK, 0),
            Some(lock) => {
                let kind = if lock.exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
                Reply::lock(lock.start, lock::end_for_kernel(lock.end), kind, lock.pid)
            }
        });
        work.reply(outcome);
    });
}

pub(super) fn set(work: Work, asked: Lock, wait: bool) {
    let meant = meant(&work, asked);
    if asked.kind == libc::F_UNLCK {
        return work
            .answer_empty(|at, caller| async move { lock::unlock(&at, &caller, meant).await });
    }
    work.spawn(move |work| async move {
        let outcome = work.lock(meant, wait).await;
        work.reply(outcome.map(|()| Reply::empty()));
    });
}

fn meant(work: &Work, asked: Lock) -> Asked {
    let range = LockRange {
        flock: asked.is_flock,
        owner: asked.owner,
        exclusive: asked.kind == libc::F_WRLCK,
        start: asked.start,
        end: lock::end_from_kernel(asked.end),
        pid: asked.pid,
    };
    Asked { inode: work.inode, handle: asked.handle, range }
}
