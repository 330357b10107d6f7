//! An operation that was started.

use std::fmt;

use tokio::sync::oneshot;

use crate::CollectiveError;

/// What an operation will give. Dropping it does not stop the operation: the other ranks count on it.
#[must_use = "an operation's outcome is in its wait"]
pub struct Pending<T> {
    outcome: oneshot::Receiver<Result<T, CollectiveError>>,
}

impl<T> Pending<T> {
    pub(crate) fn new(outcome: oneshot::Receiver<Result<T, CollectiveError>>) -> Self {
        Self { outcome }
    }

    /// Waits until it is done. Not for threads of an asynchronous runtime.
    ///
    /// # Errors
    /// [`CollectiveError::Lost`] if any rank failed or does something else.
    pub fn wait(self) -> Result<T, CollectiveError> {
        self.outcome.blocking_recv().unwrap_or_else(|_| {
            let reason = "the communicator was dropped while operations were in progress".into();
            Err(CollectiveError::Input(reason))
        })
    }

    /// Whether [`Self::wait`] would return at once.
    pub fn is_done(&self) -> bool {
        !self.outcome.is_empty() || self.outcome.is_terminated()
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}
