//! The way between this rank and the others: pieces that go, pieces that come, and the thread on which that happens.
//!
//! The thread is the communicator's own, so that sums go on while the job computes.

use std::{sync::Arc, thread, time::Duration};

use ff2_fabric::{Buf, BufPool, Call, RanksClient};
use ff2_proto::pb;
use parking_lot::Mutex;
use tokio::{
    runtime::{Builder, Handle},
    sync::{OwnedSemaphorePermit, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    CollectiveError, Rendezvous,
    fate::{self, Fate, Verdict},
    limits::{LEAVE_TIMEOUT, NEWS_TIME, PATIENCE, SEND_BYTES},
    mailbox::{Key, Mailbox, Piece},
    meet::{self, Meeting},
    seat::Seat,
    service::{RankService, crc},
};

#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) rank: usize,
    pub(crate) world: usize,
    pub(crate) verdict: Arc<Verdict>,
    pub(crate) runtime: Handle,
    patience: Duration,
    pub(crate) mailbox: Arc<Mailbox>,
    pool: Arc<BufPool>,
    /// To each rank; none to this one itself.
    clients: Vec<Option<RanksClient>>,
    watchers: Mutex<Vec<JoinHandle<bool>>>,
    stop: CancellationToken,
}

/// What a piece says beside its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) kind: u32,
    pub(crate) total_bytes: u64,
}

impl Links {
    /// Starts the thread and meets the other ranks; None: there are none.
    pub(crate) fn start(rendezvous: Option<Rendezvous>) -> Result<Owner, CollectiveError> {
        let (ready, met) = oneshot::channel();
        let body = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(live(rendezvous, ready)),
            Err(error) => drop(ready.send(Err(no_thread(&error)))),
        };
        let thread = thread::Builder::new().name("ff2-ranks".into()).spawn(body);
        let thread = thread.map_err(|error| no_thread(&error))?;
        let links = met.blocking_recv().unwrap_or_else(|gone| Err(no_thread(&gone)))?;
        Ok(Owner { links, thread: Some(thread) })
    }

    /// Sends a piece. The permit is one place in the window to that rank, and free again when it took the piece.
    pub(crate) fn send(
        self: &Arc<Self>,
        to: usize,
        key: Key,
        about: About,
        bytes: Buf,
        window: OwnedSemaphorePermit,
    ) {
        let Some(client) = self.clients[to].clone() else { return };
        let request = pb::RankPushRequest {
            from: key.from as u32,
            stream: key.stream,
            operation: key.operation,
            tag: key.tag,
            piece: key.piece,
            kind: about.kind,
            total_bytes: about.total_bytes,
            bulk_crc: crc(&bytes),
        };
        let links = self.clone();
        tokio::spawn(async move {
            let call = Call { timeout: links.patience, bulk: vec![bytes.freeze()], into: None };
            if let Err(status) = client.push(&request, call).await {
                // Who cannot be reached may have ended because of another; rank 0 knows who was first.
                let _late = timeout(NEWS_TIME, links.verdict.decided()).await;
                links.verdict.fail(to, fate::lost(&status));
            }
            drop(window);
        });
    }

    /// Memory for a piece that is to be sent.
    pub(crate) async fn buffer(&self, bytes: usize) -> Buf {
        self.pool.get(bytes).await
    }

    /// The piece, once it came. It counts against its sender's window until it is dropped.
    pub(crate) async fn receive(&self, key: Key) -> Result<Piece, CollectiveError> {
        match timeout(self.patience, self.mailbox.take(key)).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(_)) => Err(self.verdict.as_error().await),
            Err(_) => {
                let reason = format!(
                    "rank {} waited {:?} for it: does it take part in the same operations?",
                    self.rank, self.patience
                );
                Err(CollectiveError::Lost { rank: key.from, reason })
            }
        }
    }

    /// Leaves in order, after all ranks have said that they are done: rank 0 waits for all others, they for rank 0.
    pub(crate) async fn leave(&self) {
        let watchers = std::mem::take(&mut *self.watchers.lock());
        let others = futures::future::join_all(watchers);
        if self.rank == 0 {
            let _late = timeout(LEAVE_TIMEOUT, others).await;
            self.verdict.decide(Fate::Left);
        } else {
            self.verdict.decide(Fate::Left);
            let _late = timeout(LEAVE_TIMEOUT, others).await;
        }
    }
}

/// Ends the links when the last communicator is gone; what is still in progress holds the links alone.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) links: Arc<Links>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Without an orderly end the others must not wait for this rank.
        self.links.verdict.fail(self.links.rank, "it left while others may still count on it");
        self.links.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn no_thread(error: &dyn std::error::Error) -> CollectiveError {
    CollectiveError::Input(format!("cannot start the ranks' thread: {error}"))
}

type Ready = oneshot::Sender<Result<Arc<Links>, CollectiveError>>;

/// The thread's life: meets the others, then does what is asked until the links are dropped.
async fn live(rendezvous: Option<Rendezvous>, ready: Ready) {
    let stop = CancellationToken::new();
    match meet(rendezvous, &stop).await {
        Err(error) => drop(ready.send(Err(error))),
        Ok((links, seat)) => {
            let (verdict, rank, world) = (links.verdict.clone(), links.rank, links.world);
            let unwanted = ready.send(Ok(links)).is_err();
            if !unwanted {
                stop.cancelled().await;
            }
            if matches!(verdict.get(), Fate::Failed { .. }) {
                // Nobody else may know the reason yet: who is to hear it may not have asked.
                let others = if rank == 0 { world - 1 } else { 1.min(world - 1) };
                let _late = timeout(NEWS_TIME, verdict.asked_by(others)).await;
            }
            if let Some(seat) = seat {
                seat.leave().await;
            }
        }
    }
}

async fn meet(
    rendezvous: Option<Rendezvous>,
    stop: &CancellationToken,
) -> Result<(Arc<Links>, Option<Seat>), CollectiveError> {
    let (verdict, mailbox) = (Verdict::new(), Arc::new(Mailbox::new()));
    let mut links = Links {
        rank: 0,
        world: 1,
        verdict: verdict.clone(),
        runtime: Handle::current(),
        patience: PATIENCE,
        mailbox: mailbox.clone(),
        pool: BufPool::new(SEND_BYTES),
        clients: vec![None],
        watchers: Mutex::default(),
        stop: stop.clone(),
    };
    let Some(rendezvous) = rendezvous else { return Ok((Arc::new(links), None)) };
    let Rendezvous { rank, world, patience, ref master, .. } = rendezvous;
    let meeting = (rank == 0).then(|| Meeting::new(world, master.clone()));
    let service = RankService { mailbox: mailbox.clone(), verdict: verdict.clone(), meeting };
    let (seat, addresses) = meet::meet(&rendezvous, service).await?;
    (links.rank, links.world, links.patience, links.pool) =
        (rank, world, patience, seat.pool.clone());
    let client = |(at, address): (usize, &String)| (at != rank).then(|| seat.client(address));
    links.clients = addresses.iter().enumerate().map(client).collect();
    let watched = if rank == 0 { 1..world } else { 0..1 };
    let watching = watched.filter_map(|other| {
        let client = links.clients[other].clone()?;
        Some(tokio::spawn(fate::watch(client, rank, other, verdict.clone())))
    });
    *links.watchers.lock() = watching.collect();
    // Calls of others that wait here are answered when there is nothing to wait for any more.
    tokio::spawn(async move {
        verdict.decided().await;
        mailbox.close();
    });
    Ok((Arc::new(links), Some(seat)))
}
