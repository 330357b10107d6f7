//! Shares of a bound, one for each chain.
//!
//! What waits for a chain that is down keeps what it holds of a common bound for as long as the outage
//! lasts. A chain may hold a share only, so that files on other chains go on.

use std::{collections::BTreeMap, sync::Arc};

use ff2_proto::ChainId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// As many semaphores as the cluster has chains.
#[derive(Debug)]
pub(crate) struct Shares {
    units: u32,
    chains: Mutex<BTreeMap<ChainId, Arc<Semaphore>>>,
}

impl Shares {
    pub(crate) fn new(units: u32) -> Self {
        Self { units, chains: Mutex::default() }
    }

    /// Waits for room in the chain's share; what is larger than that takes all of it.
    pub(crate) async fn take(&self, chain: ChainId, units: u32) -> OwnedSemaphorePermit {
        let new = || Arc::new(Semaphore::new(self.units as usize));
        let share = self.chains.lock().entry(chain).or_insert_with(new).clone();
        let permit = share.acquire_many_owned(units.min(self.units)).await;
        permit.expect("the semaphore is never closed")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_chain_that_is_stuck_leaves_room_to_others() {
        let shares = Shares::new(2);
        let stuck = (shares.take(ChainId(1), 1).await, shares.take(ChainId(1), 1).await);
        let waits = shares.take(ChainId(1), 1);
        assert!(tokio::time::timeout(Duration::from_millis(20), waits).await.is_err());
        drop(shares.take(ChainId(2), 9).await);
        drop(stuck);
        drop(shares.take(ChainId(1), 9).await);
    }
}
