//! Batches ahead of their use: a thread reads while the model computes.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::{self, JoinHandle},
};

use ff2_model::Tokens;

use super::{DataError, Dataset, Order};

/// Batches that wait to be used, at most. Two cover one slow read each.
const AHEAD: usize = 2;

/// Which of all sequences are this rank's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// In the order of sequences, where the next step of all ranks begins.
    pub(crate) position: u64,
    /// Sequences of a batch.
    pub(crate) batch: usize,
    pub(crate) rank: usize,
    pub(crate) ranks: usize,
}

#[derive(Debug)]
pub(crate) struct Loader {
    /// None while it is dropped: that ends the thread.
    batches: Option<Receiver<Result<Tokens, DataError>>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Batch by batch of the order from `place` on, without end; ranks take turns.
    pub(crate) fn start(dataset: Arc<Dataset>, order: Order, place: Place) -> Self {
        let (sender, batches) = sync_channel(AHEAD);
        let read = move || {
            let (size, ranks) = (place.batch as u64, place.ranks as u64);
            let mut from = place.position + place.rank as u64 * size;
            loop {
                let numbers: Vec<_> = (from..from + size).map(|p| order.at(p)).collect();
                let batch = dataset.read(&numbers);
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
                from += size * ranks;
            }
        };
        let thread = thread::Builder::new().name("loader".into()).spawn(read);
        // Without a thread the channel is closed, and `next` says so.
        Self { batches: Some(batches), thread: thread.ok() }
    }

    /// # Errors
    /// A shard that cannot be read.
    pub(crate) fn next(&mut self) -> Result<Tokens, DataError> {
        let received = self.batches.as_ref().map(Receiver::recv);
        received.and_then(Result::ok).unwrap_or_else(|| {
            Err(DataError::Io {
                path: "loader".into(),
                source: std::io::Error::other("its thread ended; expected more batches"),
            })
        })
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell any more.
            let _ = thread.join();
        }
    }
}
