//! One connection to a server, from the client's side: calls that wait for their answers, and the
//! two tasks that move frames.
//!
//! A call waits for a slot and for credit, leaves an entry in the table, queues its frame and waits.
//! The reader finds the entry by the reply's id. A call that gave up leaves its entry behind without
//! a waiter: the late reply's bulk bytes are thrown away, and only then do its slot and its credit
//! come back, because only then does the server hold nothing for it any more. Where the server works
//! in our memory by itself, the call's buffers stay in the entry until then too, and its landing place,
//! when the connection fails, until the server has closed its end.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use ff2_proto::{Code, RoutingVersion, Status, pb, status};
use ff2_verbs::Place;
use parking_lot::Mutex;
use prost::Message;
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    buf::{Buf, BufPool, SharedBuf},
    clock,
    frame::{FrameError, Header, Kind},
    handshake::Welcome,
    limits::{BULK_BYTES_MAX, RDMA_TRIAL, REPLY_BUFFER_WAIT},
    outbox::Outbox,
    peers::Owed,
    pulse::Pulse,
    routing::RoutingCache,
    transport::{Frame, Head, Landing, LinkError, Receiver, Sender},
};

/// An answer: its message, and its bulk bytes where the caller wanted them.
pub(super) type Answered = (Bytes, Buf);

/// A call as it goes to a connection.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) method: u16,
    /// The message behind room for the header.
    pub(super) head: Vec<u8>,
    pub(super) bulk: Vec<SharedBuf>,
    pub(super) bulk_bytes: usize,
    pub(super) into: Option<Buf>,
    pub(super) deadline: Instant,
}

/// What became of a call on one connection.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Answered),
    Failed(Status),
    /// Nothing was sent: the call may be made on another connection.
    NotSent(Box<Outgoing>),
}

#[derive(Debug)]
pub(super) struct Connection {
    address: Arc<str>,
    outbox: Outbox<Queued>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    next_id: AtomicU64,
    /// Requests that may still be sent.
    slots: Semaphore,
    /// Bulk bytes that may still be sent.
    credit: Semaphore,
    credit_bytes: u32,
    slots_all: usize,
    pulse: Arc<Pulse>,
    pool: Arc<BufPool>,
    routing: Arc<RoutingCache>,
    /// The server reads and writes the buffers of calls by itself.
    shares_memory: bool,
    /// That it leaves from, if it does by RDMA.
    place: Option<Place>,
    /// Landing places of calls that failed with the connection: the server may still write to them.
    /// (What it may still read of theirs it will find to be something else by its checksum.)
    /// `None` once it has closed its end.
    abandoned: Mutex<Option<Vec<Buf>>>,
    end: CancellationToken,
    why: OnceLock<String>,
    born: Instant,
    /// How long, if the peer closed it.
    lived: OnceLock<Duration>,
    broke: AtomicBool,
}

/// See [`Connection::broke`].
#[derive(Debug)]
pub(super) struct Broke<'a> {
    pub(super) why: &'a str,
    /// That it left from, by RDMA.
    pub(super) place: Option<&'a Place>,
}

/// Whose frame waits to be sent.
#[derive(Debug)]
enum Queued {
    /// The call with this id.
    Call(u64),
    /// Dropped when the frame was sent, or never will be.
    Post(#[expect(dead_code, reason = "its drop is the news")] oneshot::Sender<()>),
}

/// The table's entry of one call.
#[derive(Debug)]
struct Waiting {
    credit: u32,
    /// None once the caller gave up.
    caller: Option<oneshot::Sender<Result<Answered, Status>>>,
    lent: Lent,
}

/// The buffers of a call.
#[derive(Debug, Default)]
struct Lent {
    /// The place for the reply's bulk bytes.
    into: Option<Buf>,
    /// The request's, if the server reads them by itself.
    _bulk: Vec<SharedBuf>,
}

impl Connection {
    /// Starts the two tasks. They end when the connection fails or [`Connection::stop`] is called.
    pub(super) fn start(
        address: Arc<str>,
        (mut sender, receiver): (Sender, Receiver),
        welcome: Welcome,
        pulse: Arc<Pulse>,
        pool: Arc<BufPool>,
        routing: Arc<RoutingCache>,
    ) -> Arc<Self> {
        let credit_bytes = welcome.credit_bytes.max(1);
        let slots_all = welcome.requests.max(1) as usize;
        let connection = Arc::new(Self {
            address,
            outbox: Outbox::new(),
            waiting: Mutex::default(),
            next_id: AtomicU64::new(1),
            slots: Semaphore::new(slots_all),
            credit: Semaphore::new(credit_bytes as usize),
            credit_bytes,
            slots_all,
            pulse,
            pool,
            routing,
            shares_memory: sender.shares_memory(),
            place: sender.place().cloned(),
            abandoned: Mutex::new(Some(Vec::new())),
            end: CancellationToken::new(),
            why: OnceLock::new(),
            born: clock::now(),
            lived: OnceLock::new(),
            broke: AtomicBool::new(false),
        });
        connection.pulse.opened(sender.transport());
        tokio::spawn(connection.clone().write(sender));
        tokio::spawn(connection.clone().read(receiver));
        connection
    }

    pub(super) fn is_open(&self) -> bool {
        !self.end.is_cancelled()
    }

    /// How many more calls it takes: to choose between connections.
    pub(super) fn free_slots(&self) -> usize {
        self.slots.available_permits()
    }

    /// Adds what calls hold now.
    pub(super) fn add_owed(&self, owed: &mut Owed) {
        owed.connections += 1;
        owed.calls += self.waiting.lock().len();
        owed.slots += self.slots_all - self.slots.available_permits();
        owed.credit_bytes += self.credit_bytes as usize - self.credit.available_permits();
    }

    pub(super) fn stop(&self) {
        self.fail(&LinkError::Stopped);
    }

    /// Ends it when all that is under way is answered. Calls that come later find it closed with nothing sent, and take
    /// another.
    pub(super) async fn retire(&self) {
        let all = u32::try_from(self.slots_all).unwrap_or(u32::MAX);
        // An error: it is closed already.
        let _all = self.slots.acquire_many(all).await;
        self.stop();
    }

    /// Makes one call. Dropping the future gives the call up; whether the server saw it is unknown.
    pub(super) async fn call(&self, call: Outgoing) -> Outcome {
        let credit = u32::try_from(call.bulk_bytes).unwrap_or(u32::MAX).min(self.credit_bytes);
        // One is taken after the other and both in order of arrival, so nobody waits in a circle.
        let Ok(slot) = self.slots.acquire().await else { return Outcome::NotSent(call.into()) };
        let bytes = self.credit.acquire_many(credit).await;
        let Ok(bytes) = bytes else { return Outcome::NotSent(call.into()) };
        slot.forget();
        bytes.forget();

        let Outgoing { method, head, bulk, into, deadline, .. } = call;
        let id = self.next_id.fetch_add(1, Relaxed);
        let (answer, answered) = oneshot::channel();
        let mut header = Header::new(Kind::Request, id, self.routing.version().0);
        header.method = method;
        header.timeout_ms = millis(deadline.saturating_duration_since(clock::now()));
        let mut frame = Frame::new(header, head, bulk);
        let mut lent = Lent { into, _bulk: Vec::new() };
        if self.shares_memory {
            frame.landing = lent.into.as_ref().and_then(landing);
            lent._bulk = frame.bulk.clone();
        }
        self.waiting.lock().insert(id, Waiting { credit, caller: Some(answer), lent });
        let guard = GiveUp { connection: self, id };
        self.pulse.called();
        self.pulse.took(frame.bytes());
        let pushed = self.outbox.push(frame, Queued::Call(id));
        if pushed.is_err() {
            self.finish(id);
        }
        let outcome = match answered.await {
            Ok(Ok(answered)) => Outcome::Answered(answered),
            _ if pushed.is_err() => Outcome::Failed(self.unreachable()),
            Ok(Err(status)) => Outcome::Failed(status),
            Err(_) => Outcome::Failed(self.unknown()),
        };
        std::mem::forget(guard);
        outcome
    }

    /// Sends a request that the server does not answer, and returns when it is on its way: who waits for
    /// that before the next is held back by a peer that is slow. False: it was not sent.
    pub(super) async fn post(&self, method: u16, head: Vec<u8>, deadline: Instant) -> bool {
        let (sent, is_sent) = oneshot::channel();
        let mut header = Header::new(Kind::Post, 0, self.routing.version().0);
        header.method = method;
        header.timeout_ms = millis(deadline.saturating_duration_since(clock::now()));
        let frame = Frame::new(header, head, Vec::new());
        self.pulse.called();
        self.pulse.took(frame.bytes());
        if self.outbox.push(frame, Queued::Post(sent)).is_err() {
            return false;
        }
        // An error by its nature: nothing is ever said but the end.
        let _ = is_sent.await;
        self.is_open()
    }

    /// Takes an entry out and returns its slot and credit.
    fn finish(&self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.lock().remove(&id)?;
        self.release(&waiting);
        Some(waiting)
    }

    fn release(&self, waiting: &Waiting) {
        self.slots.add_permits(1);
        self.credit.add_permits(waiting.credit as usize);
    }

    async fn write(self: Arc<Self>, mut sender: Sender) {
        let version = || self.routing.version().0;
        let sending = self.outbox.send_all(&mut sender, &self.pulse, version);
        // Whoever ended the connection has said why.
        let ended = tokio::select! {
            biased;
            () = self.end.cancelled() => Ok(()),
            ended = sending => ended,
        };
        if let Err(why) = ended {
            self.fail(&why);
        }
    }

    async fn read(self: Arc<Self>, mut receiver: Receiver) {
        let ended = tokio::select! {
            biased;
            () = self.end.cancelled() => Ok(()),
            ended = self.receive(&mut receiver) => ended,
        };
        if let Err(why) = ended {
            self.fail(&why);
        }
        receiver.until_closed().await;
        *self.abandoned.lock() = None;
    }

    /// Takes replies in until the connection ends.
    async fn receive(&self, receiver: &mut Receiver) -> Result<(), LinkError> {
        let mut known_version = 0;
        loop {
            let head = receiver.head().await?;
            if head.header.routing_version > known_version {
                known_version = head.header.routing_version;
                self.routing.heard_of(RoutingVersion(known_version));
            }
            match head.header.kind {
                Kind::Alive => (),
                Kind::Reply | Kind::Failure => self.reply(head, receiver).await?,
                other => return Err(FrameError::Unexpected(other).into()),
            }
        }
    }

    async fn reply(&self, head: Head, receiver: &mut Receiver) -> Result<(), LinkError> {
        let Some(mut waiting) = self.waiting.lock().remove(&head.header.id) else {
            return Err(FrameError::Unexpected(head.header.kind).into());
        };
        self.pulse.brought(head.bytes());
        let result = self.answer(head, &mut waiting, receiver).await?;
        self.release(&waiting);
        if let (Some(result), Some(caller)) = (result, waiting.caller) {
            // The caller may have given up meanwhile: then the bytes go back to the pool here.
            let _ = caller.send(result);
        }
        Ok(())
    }

    /// Takes the reply's bulk bytes; None if nobody waits for them.
    async fn answer(
        &self,
        head: Head,
        waiting: &mut Waiting,
        receiver: &mut Receiver,
    ) -> Result<Option<Result<Answered, Status>>, LinkError> {
        let len = head.header.bulk_bytes as usize;
        if waiting.caller.as_ref().is_none_or(oneshot::Sender::is_closed) {
            receiver.skip(len).await?;
            return Ok(None);
        }
        if head.header.kind == Kind::Failure {
            receiver.skip(len).await?;
            return Ok(Some(Err(failure(head.message))));
        }
        let place = match waiting.lent.into.take() {
            None if head.landed => return Err(FrameError::BulkMisplaced.into()),
            Some(into) if into.len() < len => Err(Status::new(
                Code::BadFrame,
                format!("the reply has {len} bulk bytes, its buffer {}", into.len()),
            )),
            Some(mut into) => {
                into.truncate(len);
                Ok(into)
            }
            None => self.pool_buffer(len).await,
        };
        match place {
            Ok(mut place) => {
                receiver.bulk(&mut place).await?;
                Ok(Some(Ok((head.message, place))))
            }
            Err(status) => {
                receiver.skip(len).await?;
                Ok(Some(Err(status)))
            }
        }
    }

    async fn pool_buffer(&self, len: usize) -> Result<Buf, Status> {
        if let Some(buf) = self.pool.try_get(len) {
            return Ok(buf);
        }
        let paused = self.pulse.pause();
        let waited = timeout(REPLY_BUFFER_WAIT, self.pool.get(len)).await;
        drop(paused);
        waited.map_err(|_| {
            Status::new(Code::Busy, format!("no buffer for a reply of {len} bytes: all are in use"))
        })
    }

    /// Ends the connection. Calls whose frame was not begun may be made elsewhere, all others may
    /// have happened.
    fn fail(&self, why: &LinkError) {
        if self.why.set(why.to_string()).is_ok() {
            let broke = !matches!(why, LinkError::Closed | LinkError::Stopped);
            self.broke.store(broke, Relaxed);
            if matches!(why, LinkError::Closed) {
                let _ = self.lived.set(clock::now().saturating_duration_since(self.born));
            }
            self.pulse.closed(broke);
            tracing::debug!(address = %self.address, %why, "connection ended");
        }
        self.end.cancel();
        self.slots.close();
        self.credit.close();
        for queued in self.outbox.close() {
            let Queued::Call(id) = queued else { continue };
            if let Some(caller) = self.finish(id).and_then(|waiting| waiting.caller) {
                let _ = caller.send(Err(self.unreachable()));
            }
        }
        let mut sent: Vec<_> = self.waiting.lock().drain().collect();
        // First called, first told.
        sent.sort_unstable_by_key(|(id, _)| *id);
        for (_, Waiting { caller, mut lent, .. }) in sent {
            if let Some(mut into) = lent.into.take().filter(|_| self.shares_memory) {
                into.repay();
                if let Some(abandoned) = &mut *self.abandoned.lock() {
                    abandoned.push(into);
                }
            }
            if let Some(caller) = caller {
                let _ = caller.send(Err(self.unknown()));
            }
        }
    }

    /// How a connection ended that did so with an error, as far as can be told.
    pub(super) fn broke(&self) -> Option<Broke<'_>> {
        let tried = self.place.is_some() && self.lived.get().is_some_and(|time| *time < RDMA_TRIAL);
        let broke = self.broke.load(Relaxed) || tried;
        broke.then(|| Broke { why: self.why(), place: self.place.as_ref() })
    }

    /// See [`Sender::shares_memory`].
    pub(super) fn shares_memory(&self) -> bool {
        self.shares_memory
    }

    fn why(&self) -> &str {
        self.why.get().map_or("it was closed", |why| why)
    }

    fn unreachable(&self) -> Status {
        let detail = format!("the connection to {} was lost ({})", self.address, self.why());
        Status::new(Code::Unreachable, detail)
    }

    fn unknown(&self) -> Status {
        let detail = format!(
            "the connection to {} was lost before the answer ({})",
            self.address,
            self.why()
        );
        Status::new(Code::UnknownOutcome, detail)
    }
}

impl Drop for Connection {
    /// The runtime ended under the reader: the server may still write to these.
    fn drop(&mut self) {
        if let Some(abandoned) = self.abandoned.get_mut().take().filter(|_| self.shares_memory) {
            let waiting = self.waiting.get_mut().drain().filter_map(|(_, call)| call.lent.into);
            abandoned.into_iter().chain(waiting).for_each(std::mem::forget);
        }
    }
}

/// Gives a call up if its future is dropped.
struct GiveUp<'a> {
    connection: &'a Connection,
    id: u64,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        let (connection, id) = (self.connection, self.id);
        if connection
            .outbox
            .withdraw(|queued| matches!(queued, Queued::Call(call) if *call == id))
            .is_some()
        {
            connection.finish(id);
        } else if let Some(waiting) = connection.waiting.lock().get_mut(&id) {
            // The reply will find nobody; the buffers go back now, if they are ours alone.
            waiting.caller = None;
            if !connection.shares_memory {
                waiting.lent = Lent::default();
            }
        }
    }
}

/// Where the server may put the reply's bulk bytes.
fn landing(into: &Buf) -> Option<Landing> {
    let (slab, offset) = into.place()?;
    Some(Landing::Ours { slab: slab.clone(), offset, len: into.len() })
}

fn failure(message: Bytes) -> Status {
    let decoded = pb::Status::decode(message).map(Some);
    let damaged = || Status::new(Code::BadFrame, "the server failed without a readable reason");
    match decoded.map(status::check) {
        Ok(Err(status)) => status,
        Ok(Ok(())) | Err(_) => damaged(),
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}

const _: () = assert!(BULK_BYTES_MAX <= u32::MAX as usize);
