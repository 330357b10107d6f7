//! What becomes of the job, as this rank knows it: it runs, this rank left in order, or some rank failed.
//!
//! Rank 0 watches all others and all watch rank 0: a call that is answered when its server's fate is decided. So a rank
//! that fails, or whose connection breaks, is known to rank 0 at once, and from there to all. A process that stands
//! still is silent, and the fabric breaks its connections after 5 s.

use std::sync::Arc;

use ff2_fabric::{Call, RanksClient};
use ff2_proto::{Code, pb};
use tokio::sync::watch;

use crate::{CollectiveError, limits::WATCH_TIMEOUT};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Running,
    Left,
    Failed { rank: usize, reason: String },
}

/// The fate, which is decided once.
#[derive(Debug)]
pub(crate) struct Verdict {
    fate: watch::Sender<Fate>,
    /// How many others have asked for it: these are answered.
    asked: watch::Sender<usize>,
}

impl Verdict {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { fate: watch::Sender::new(Fate::Running), asked: watch::Sender::new(0) })
    }

    /// The first decision stays.
    pub(crate) fn decide(&self, fate: Fate) {
        self.fate.send_if_modified(|known| {
            let first = *known == Fate::Running;
            if first {
                *known = fate;
            }
            first
        });
    }

    pub(crate) fn fail(&self, rank: usize, reason: impl Into<String>) {
        self.decide(Fate::Failed { rank, reason: reason.into() });
    }

    pub(crate) fn get(&self) -> Fate {
        self.fate.borrow().clone()
    }

    /// Waits until it is decided.
    pub(crate) async fn decided(&self) -> Fate {
        let mut fate = self.fate.subscribe();
        let found = fate.wait_for(|fate| *fate != Fate::Running).await;
        found.map_or(Fate::Left, |fate| fate.clone())
    }

    pub(crate) fn note_asked(&self) {
        self.asked.send_modify(|asked| *asked += 1);
    }

    /// Waits until so many have asked for it.
    pub(crate) async fn asked_by(&self, others: usize) {
        // It cannot fail: the sender is here.
        let mut asked = self.asked.subscribe();
        let _enough = asked.wait_for(|asked| *asked >= others).await;
    }

    /// Waits until it is decided, and says so as an operation does.
    pub(crate) async fn as_error(&self) -> CollectiveError {
        match self.decided().await {
            Fate::Failed { rank, reason } => CollectiveError::Lost { rank, reason },
            Fate::Running | Fate::Left => {
                CollectiveError::Input("this rank has closed its communicator".into())
            }
        }
    }
}

/// Asks a rank until its fate is decided, and makes a failure that it knows of ours. True if it left in order.
pub(crate) async fn watch(
    client: RanksClient,
    from: usize,
    rank: usize,
    verdict: Arc<Verdict>,
) -> bool {
    let request = pb::RankWatchRequest { from: u32::try_from(from).unwrap_or(u32::MAX) };
    loop {
        match client.watch(&request, Call::within(WATCH_TIMEOUT)).await {
            Ok((reply, _)) if reply.failed => {
                verdict.fail(reply.rank as usize, reply.reason);
                return false;
            }
            Ok(_) => return true,
            Err(status) if status.code == Code::Timeout => {}
            Err(status) => {
                verdict.fail(rank, lost(&status));
                return false;
            }
        }
    }
}

/// A broken connection, in words of ranks.
pub(crate) fn lost(status: &ff2_proto::Status) -> String {
    format!("its process is gone or its host cannot be reached ({})", status.detail)
}
