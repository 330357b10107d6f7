//! The check, or repair, of the namespace that this metad makes now: it may take longer than a call, which then
//! asks again.

use std::{
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use ff2_proto::{Code, Status, pb};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;

use crate::namespace::{Checked, NamespaceGroup};

/// How long a call waits for the end.
const PATIENCE: Duration = Duration::from_secs(3);

type Running = Shared<BoxFuture<'static, Result<Checked, Status>>>;

/// At most one, since it takes much memory; what it found stays until the next.
#[derive(Debug, Default)]
pub(super) struct Checks {
    last: Mutex<Option<(u64, Running)>>,
    count: AtomicU64,
}

impl Checks {
    /// Begins a check, or goes on waiting for one.
    pub(super) async fn ask(
        &self,
        namespace: &Arc<NamespaceGroup>,
        request: pb::CheckNamespaceRequest,
    ) -> Result<pb::CheckNamespaceReply, Status> {
        let (check, running) = self.running(namespace, request)?;
        let Ok(done) = tokio::time::timeout(PATIENCE, running).await else {
            return Ok(pb::CheckNamespaceReply { check, ..Default::default() });
        };
        let Checked { inodes, problems, mends } = done?;
        Ok(pb::CheckNamespaceReply {
            check,
            done: true,
            inodes,
            problems: problems.count,
            first_problems: problems.first,
            mends: mends.count,
            first_mends: mends.first,
        })
    }

    fn running(
        &self,
        namespace: &Arc<NamespaceGroup>,
        pb::CheckNamespaceRequest { check, repair }: pb::CheckNamespaceRequest,
    ) -> Result<(u64, Running), Status> {
        let mut last = self.last.lock();
        match &*last {
            Some((known, running)) if *known == check => return Ok((check, running.clone())),
            _ if check != 0 => {
                let gone = "this check is not known here (any more): begin another";
                return Err(Status::new(Code::NotFound, gone));
            }
            Some((_, running)) if running.peek().is_none() => {
                let goes_on = "another check of the namespace goes on: wait for its end";
                return Err(Status::new(Code::InvalidArgument, goes_on));
            }
            _ => {}
        }
        let namespace = namespace.clone();
        let task = tokio::spawn(async move { namespace.check_names(repair).await });
        let ended = |_| Err(Status::new(Code::UnknownOutcome, "the process is stopping"));
        let running: Running =
            task.map(move |outcome| outcome.unwrap_or_else(ended)).boxed().shared();
        let check = 1 + self.count.fetch_add(1, Ordering::Relaxed);
        *last = Some((check, running.clone()));
        Ok((check, running))
    }
}
