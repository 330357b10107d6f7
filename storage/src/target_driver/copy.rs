//! Whole chunks on their way to a successor, within a share of the buffers.

use std::sync::Arc;

use ff2_fabric::{BufPool, buf::SharedBuf};
use ff2_proto::{Code, Status, TargetId};
use ff2_storage_core::target::FullCopy;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    engine::{Check, Engine, Which},
    limits,
};

/// Counted in pages, so that the largest pool fits into a semaphore.
const PAGE: u64 = 4 << 10;

/// The part of the buffers that copies may fill. Two nodes that copy to each other would otherwise
/// fill both pools and leave no room to receive what the other sends.
#[derive(Debug)]
pub struct CopyBudget {
    pages: Arc<Semaphore>,
    all: u32,
}

/// Bytes of a whole version; they count against the budget until this is dropped.
pub(super) struct Whole {
    pub(super) bytes: SharedBuf,
    _share: OwnedSemaphorePermit,
}

impl CopyBudget {
    pub fn new(pool: &BufPool) -> Self {
        let pages = (pool.limit_bytes() / limits::COPY_SHARE / PAGE).max(1);
        let all = u32::try_from(pages).unwrap_or(u32::MAX);
        Self { pages: Arc::new(Semaphore::new(all as usize)), all }
    }

    async fn take(&self, bytes: u32) -> Result<OwnedSemaphorePermit, Status> {
        let pages = (u64::from(bytes).div_ceil(PAGE)).min(self.all.into()) as u32;
        let taken = self.pages.clone().acquire_many_owned(pages);
        match timeout(limits::BUFFER_WAIT, taken).await {
            Ok(Ok(share)) => Ok(share),
            Ok(Err(_)) | Err(_) => Err(busy("too many copies are on their way")),
        }
    }
}

/// The bytes of a whole version, if the store still has exactly that one.
pub(super) async fn read_whole(
    engine: &Engine,
    target: TargetId,
    copy: &FullCopy,
    pool: &Arc<BufPool>,
    budget: &CopyBudget,
) -> Result<Whole, Status> {
    let share = budget.take(copy.length).await?;
    let buf = timeout(limits::BUFFER_WAIT, pool.get(copy.length as usize)).await;
    let buf = buf.map_err(|_| busy("no buffer for a copy"))?;
    let which = if copy.resync { Which::Committed } else { Which::Pending };
    let found = engine.read(target, copy.chunk, which, 0, copy.length, Check::Here, buf).await;
    let (buf, readout) = match found {
        Err(status) if status.code == Code::NotFound => return Err(busy("the version moved on")),
        found => found?,
    };
    if (readout.version, readout.chain_version) != (copy.id.version, copy.id.made_under) {
        return Err(busy("the version moved on"));
    }
    Ok(Whole { bytes: buf.freeze(), _share: share })
}

fn busy(detail: &str) -> Status {
    Status::new(Code::Busy, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn copies_fill_their_share_and_no_more() {
        let pool = BufPool::new(limits::COPY_SHARE * 8 * PAGE);
        let budget = CopyBudget::new(&pool);
        let first = budget.take(5 * PAGE as u32).await.unwrap();
        assert_eq!(budget.take(4 * PAGE as u32).await.unwrap_err().code, Code::Busy);
        drop(first);
        // One that is larger than the share goes alone.
        let large = budget.take(100 * PAGE as u32).await.unwrap();
        assert!(budget.take(1).await.is_err());
        drop(large);
        assert!(budget.take(0).await.is_ok());
    }
}
