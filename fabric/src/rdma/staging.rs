//! Memory that the devices move payloads through, on the server's side, where they cannot use that of the payloads
//! itself: READ into it, WRITE out of it.
//!
//! It is registered once, with one device. A device may write to a piece until its transfer is over, also when nobody
//! waits for that any more, so the pieces belong to the transfers; what the network brought is copied to the
//! request's own buffer. How much of it there is bounds what a server pulls at a time from all clients that come by
//! the device.

use std::sync::Arc;

use ff2_verbs::{Access, Buffer, Domain, Pool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::RdmaError;
use crate::limits::{STAGING_PIECE_BYTES, STAGING_PIECES};

#[derive(Debug)]
pub(super) struct Staging {
    pool: Arc<Pool>,
    free: Arc<Semaphore>,
}

/// Some of that memory. What a device has is taken apart: the buffer goes with the transfer.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) buffer: Buffer,
    // After the buffer: who waits for this finds it free.
    pub(super) loan: Loan,
}

/// Another may have the piece when this is dropped.
pub(super) type Loan = OwnedSemaphorePermit;

impl Staging {
    pub(super) fn new(domain: &Arc<Domain>) -> Result<Arc<Self>, RdmaError> {
        Self::registered(std::slice::from_ref(domain))
    }

    fn registered(domains: &[Arc<Domain>]) -> Result<Arc<Self>, RdmaError> {
        let bytes = STAGING_PIECE_BYTES as u32;
        let pool = Pool::new(domains, STAGING_PIECES, bytes, Access::Local)?;
        let free = Arc::new(Semaphore::new(STAGING_PIECES as usize));
        Ok(Arc::new(Self { pool, free }))
    }

    /// A piece of at most [`STAGING_PIECE_BYTES`]. Who has some already must not wait for more.
    pub(super) async fn take(&self, len: usize) -> Piece {
        loop {
            let loan = self.free.clone().acquire_owned().await;
            if let Some(piece) = self.lend(len, loan.expect("the semaphore is never closed")) {
                return piece;
            }
        }
    }

    /// As [`Staging::take`], or `None` where that would wait.
    pub(super) fn try_take(&self, len: usize) -> Option<Piece> {
        let loan = self.free.clone().try_acquire_owned().ok()?;
        self.lend(len, loan)
    }

    fn lend(&self, len: usize, loan: Loan) -> Option<Piece> {
        let Some(mut buffer) = self.pool.take() else {
            // A device that did not let a connection go has it for ever.
            loan.forget();
            return None;
        };
        buffer.truncate(len);
        Some(Piece { buffer, loan })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[tokio::test]
    async fn no_more_is_lent_than_there_is() {
        let staging = Staging::registered(&[]).unwrap();
        let mut lent = Vec::new();
        while let Some(piece) = staging.try_take(1000) {
            assert_eq!(piece.buffer.len(), 1000);
            lent.push(piece);
        }
        assert_eq!(lent.len(), STAGING_PIECES as usize);
        let mut waiting = Box::pin(staging.take(STAGING_PIECE_BYTES));
        assert!(futures::poll!(&mut waiting).is_pending());
        lent.pop();
        assert_eq!(waiting.await.buffer.len(), STAGING_PIECE_BYTES);
    }
}
