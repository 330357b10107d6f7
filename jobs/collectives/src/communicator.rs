//! The public side: who takes part, and the operations that they start.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    CollectiveError, Pending, Plain, Rendezvous,
    fate::Fate,
    limits::{OPERATIONS_MAX, PIECE_BYTES, TAGS, WINDOW},
    links::{Links, Owner},
    mailbox::Key,
    run::{Operation, kind, other_kind},
    schedule::{self, Place},
};

/// Ranks that compute together. All of them must start the same operations in the same order; each operation begins
/// when the one before is done. Operations of a communicator that was [split](Self::split) off go on beside them.
///
/// Its calls block and are not for threads of an asynchronous runtime. A process of several threads may start
/// operations from any, if it keeps their order.
#[derive(Debug)]
pub struct Communicator {
    owner: Arc<Owner>,
    channel: Arc<Channel>,
    streams: Arc<AtomicU32>,
    queue: mpsc::Sender<BoxFuture<'static, ()>>,
    next: Mutex<u64>,
}

/// A group of ranks and the number under which its pieces travel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) links: Arc<Links>,
    /// The ranks of the job that take part, ascending; a rank of the group is a place here.
    pub(crate) members: Vec<usize>,
    pub(crate) me: usize,
    pub(crate) stream: u32,
    /// To each rank one for each tag. What rises in a tree must not take the places of what falls: two ranks that are
    /// each other's parents, one in each tree, would wait for each other.
    windows: Vec<[Arc<Semaphore>; TAGS]>,
}

impl Channel {
    /// Waits for a place in the window to a rank of the group.
    pub(crate) async fn window(
        &self,
        to: usize,
        tag: u32,
    ) -> Result<OwnedSemaphorePermit, CollectiveError> {
        let permit = self.windows[to][tag as usize].clone().acquire_owned().await;
        permit.map_err(|_| CollectiveError::Input("a window was closed".into()))
    }

    pub(crate) fn key(&self, from: usize, operation: u64, (tag, piece): (u32, u32)) -> Key {
        Key { from: self.members[from], stream: self.stream, operation, tag, piece }
    }

    /// Until every piece that was sent was taken.
    async fn flushed(&self) {
        for window in self.windows.iter().flatten() {
            let _closed = window.acquire_many(WINDOW as u32).await;
        }
    }
}

impl Communicator {
    /// Meets the other ranks as the environment says; alone without a `WORLD_SIZE`.
    ///
    /// # Errors
    /// What is wrong with the environment, the key or the address; who did not come in time.
    pub fn from_env() -> Result<Self, CollectiveError> {
        match Rendezvous::from_env()? {
            Some(rendezvous) => Self::meet(rendezvous),
            None => Self::alone(),
        }
    }

    /// Meets the other ranks.
    ///
    /// # Errors
    /// As [`Self::from_env`].
    pub fn meet(rendezvous: Rendezvous) -> Result<Self, CollectiveError> {
        let Rendezvous { rank, world, .. } = rendezvous;
        if rank >= world {
            return Err(CollectiveError::Input(format!("rank {rank} of {world} ranks")));
        }
        let owner = Links::start((world > 1).then_some(rendezvous))?;
        Ok(Self::new(Arc::new(owner), (0..world).collect(), 0, Arc::new(AtomicU32::new(1))))
    }

    /// One rank, which every operation costs next to nothing.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn alone() -> Result<Self, CollectiveError> {
        let owner = Arc::new(Links::start(None)?);
        Ok(Self::new(owner, vec![0], 0, Arc::new(AtomicU32::new(1))))
    }

    fn new(owner: Arc<Owner>, members: Vec<usize>, stream: u32, streams: Arc<AtomicU32>) -> Self {
        let links = owner.links.clone();
        let me =
            members.iter().position(|&rank| rank == links.rank).expect("a rank is in its group");
        let windows =
            members.iter().map(|_| [(); TAGS].map(|()| Arc::new(Semaphore::new(WINDOW)))).collect();
        let (queue, mut waiting) = mpsc::channel::<BoxFuture<'static, ()>>(OPERATIONS_MAX);
        links.runtime.spawn(async move {
            while let Some(operation) = waiting.recv().await {
                operation.await;
            }
        });
        let channel = Arc::new(Channel { links, members, me, stream, windows });
        Self { owner, channel, streams, queue, next: Mutex::new(0) }
    }

    pub fn rank(&self) -> usize {
        self.channel.me
    }

    /// How many ranks take part.
    pub fn ranks(&self) -> usize {
        self.channel.members.len()
    }

    /// Ranks of equal colour form a group, in the order of their ranks; this rank's is returned. Operations of the
    /// group do not wait for those of this communicator, nor these for them: with one colour for all it is a second
    /// stream. All ranks of the job must split in the same order; `colour` must be the same function everywhere.
    pub fn split(&self, colour: impl Fn(usize) -> usize) -> Self {
        let mine = colour(self.channel.me);
        let members = self.channel.members.iter().enumerate();
        let members =
            members.filter(|(at, _)| colour(*at) == mine).map(|(_, &rank)| rank).collect();
        let stream = self.streams.fetch_add(1, Relaxed);
        Self::new(self.owner.clone(), members, stream, self.streams.clone())
    }

    /// The sum over all ranks of each number, with the same bits on each rank and in each run of as many ranks.
    pub fn all_reduce(&self, numbers: Vec<f32>) -> Pending<Vec<f32>> {
        let place = self.place();
        self.start(kind::ALL_REDUCE, move |operation| async move {
            let sequences = schedule::all_reduce(place, numbers.len());
            operation.follow(sequences, numbers).await
        })
    }

    /// The sum over all ranks of this rank's part: `parts[r]` numbers are the rank r's, in order of ranks.
    ///
    /// # Errors
    /// Parts that are not one a rank, or together not the numbers.
    pub fn reduce_scatter(
        &self,
        numbers: Vec<f32>,
        parts: &[usize],
    ) -> Result<Pending<Vec<f32>>, CollectiveError> {
        self.check(parts, numbers.len(), parts.iter().sum())?;
        let (place, parts) = (self.place(), parts.to_vec());
        Ok(self.start(kind::REDUCE_SCATTER, move |operation| async move {
            let start: usize = parts[..place.rank].iter().sum();
            let sequences = schedule::reduce_scatter(place, &parts);
            let mut all = operation.follow(sequences, numbers).await?;
            all.truncate(start + parts[place.rank]);
            Ok(all.split_off(start))
        }))
    }

    /// The parts of all ranks behind each other; this one's has `parts[rank]` numbers.
    ///
    /// # Errors
    /// Parts that are not one a rank, or another length of this rank's.
    pub fn all_gather(
        &self,
        part: Vec<f32>,
        parts: &[usize],
    ) -> Result<Pending<Vec<f32>>, CollectiveError> {
        self.check(parts, part.len(), parts.get(self.rank()).copied().unwrap_or(0))?;
        let (place, parts) = (self.place(), parts.to_vec());
        Ok(self.start(kind::ALL_GATHER, move |operation| async move {
            let start: usize = parts[..place.rank].iter().sum();
            let mut all = vec![0.0; parts.iter().sum()];
            all[start..][..part.len()].copy_from_slice(&part);
            operation.follow(schedule::all_gather(place, &parts), all).await
        }))
    }

    /// The numbers of the rank `root`; all give as many.
    ///
    /// # Errors
    /// A root that there is not.
    pub fn broadcast(
        &self,
        numbers: Vec<f32>,
        root: usize,
    ) -> Result<Pending<Vec<f32>>, CollectiveError> {
        let place = self.place();
        if root >= place.ranks {
            let detail = format!("a broadcast from rank {root} of {} ranks", place.ranks);
            return Err(CollectiveError::Input(detail));
        }
        Ok(self.start(kind::BROADCAST, move |operation| async move {
            let sequences = schedule::broadcast(place, root, numbers.len());
            operation.follow(sequences, numbers).await
        }))
    }

    /// `out[r]` goes to the rank r; gives what each rank sent here, in order of ranks. Lengths may differ.
    ///
    /// # Errors
    /// Lists that are not one a rank.
    pub fn all_to_all<T: Plain>(
        &self,
        out: Vec<Vec<T>>,
    ) -> Result<Pending<Vec<Vec<T>>>, CollectiveError> {
        if out.len() != self.ranks() {
            let detail = format!(
                "{} lists to send, expected one for each of {} ranks",
                out.len(),
                self.ranks()
            );
            return Err(CollectiveError::Input(detail));
        }
        Ok(self
            .start(kind::ALL_TO_ALL, move |operation| async move { operation.exchange(out).await }))
    }

    /// Gives what each rank shared, in order of ranks. For a few numbers: each pair of ranks exchanges them.
    pub fn share<T: Plain>(&self, own: Vec<T>) -> Pending<Vec<Vec<T>>> {
        let out = vec![own; self.ranks()];
        self.start(kind::ALL_TO_ALL, move |operation| async move { operation.exchange(out).await })
    }

    /// Done when all ranks have started it, and so all that they started before.
    pub fn barrier(&self) -> Pending<()> {
        let place = self.place();
        self.start(kind::BARRIER, move |operation| async move {
            operation.follow(schedule::all_reduce(place, 1), vec![0.0]).await.map(drop)
        })
    }

    /// Tells all ranks why this one cannot go on: their operations end with it, and so do later ones here.
    pub fn fail(&self, reason: &str) {
        let links = &self.channel.links;
        links.verdict.fail(links.rank, reason);
    }

    /// The orderly end of all communicators of this job: waits for all ranks, and nothing can be started any more. When
    /// the last one is dropped without it, the others fail, as when the process ends.
    ///
    /// # Errors
    /// If a rank failed before it came here.
    pub fn close(&self) -> Result<(), CollectiveError> {
        self.barrier().wait()?;
        let links = self.channel.links.clone();
        let channel = self.channel.clone();
        let (done, left) = oneshot::channel();
        links.runtime.clone().spawn(async move {
            channel.flushed().await;
            links.leave().await;
            let _gone = done.send(());
        });
        let _stopped = left.blocking_recv();
        match self.channel.links.verdict.get() {
            Fate::Failed { rank, reason } => Err(CollectiveError::Lost { rank, reason }),
            Fate::Running | Fate::Left => Ok(()),
        }
    }

    fn place(&self) -> Place {
        Place { rank: self.rank(), ranks: self.ranks(), piece: PIECE_BYTES / size_of::<f32>() }
    }

    fn check(&self, parts: &[usize], found: usize, expected: usize) -> Result<(), CollectiveError> {
        if parts.len() != self.ranks() || found != expected {
            let detail = format!(
                "{} parts for {} ranks, and {found} numbers where the parts say {expected}",
                parts.len(),
                self.ranks()
            );
            return Err(CollectiveError::Input(detail));
        }
        Ok(())
    }

    /// Queues an operation. If any rank failed, or does while it goes on, it ends with that.
    fn start<T, F>(
        &self,
        kind: u32,
        work: impl FnOnce(Operation) -> F + Send + 'static,
    ) -> Pending<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CollectiveError>> + Send,
    {
        let (done, outcome) = oneshot::channel();
        let channel = self.channel.clone();
        // Held while it is queued, so that numbers are in the order of the queue.
        let mut next = self.next.lock();
        let number = *next;
        *next += 1;
        let operation = async move {
            let (links, rank, stream) = (channel.links.clone(), channel.links.rank, channel.stream);
            if let Some((from, theirs)) = links.mailbox.begin(stream, number, kind) {
                links.verdict.fail(from, other_kind(number, stream, theirs, kind));
            }
            let work = work(Operation { channel, number, kind });
            let ended = tokio::select! {
                biased;
                error = links.verdict.as_error() => Err(error),
                ended = work => ended,
            };
            links.mailbox.end(stream, number);
            match &ended {
                Err(CollectiveError::Lost { rank, reason }) => links.verdict.fail(*rank, reason),
                Err(error) => links.verdict.fail(rank, error.to_string()),
                Ok(_) => {}
            }
            let _nobody_waits = done.send(ended);
        };
        // A queue that is gone is that of a thread that ended, which the outcome's end tells.
        let _gone = self.queue.blocking_send(operation.boxed());
        drop(next);
        Pending::new(outcome)
    }
}
