//! One connection from a client, on the server's side.
//!
//! The reader takes requests in: it waits for a free place and for memory before it reads a payload,
//! so a full server pushes back through the transport. Each handler runs in a task of its own and is
//! never cut short: an answer that comes after the deadline is replaced by a short refusal, which
//! returns the caller's credit. Two tasks, reader and writer, end together.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ff2_proto::{Code, RoutingVersion, Status, pb};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::{
    auth::{check_claims, now_s},
    buf::Buf,
    clock,
    frame::{FrameError, HEADER_BYTES, Header, Kind, encode_message},
    limits::{
        BULK_BYTES_MAX, DRAIN_MAX, FINISH_MAX, MESSAGE_BYTES_MAX, PAGE_BYTES, PULLS_MAX,
        REQUESTS_MAX, SMALL_MESSAGE_BYTES,
    },
    outbox::Outbox,
    pulse::Pulse,
    rdma::Pulling,
    rpc::{Context, Method, Peer, Reply, Request, no_such_method},
    transport::{Frame, Head, Landing, LinkError, Receiver, Sender},
};

#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    peer: Peer,
    from: Option<IpAddr>,
    outbox: Outbox<Place>,
    places: Arc<Semaphore>,
    /// Payloads that are pulled beside what comes next.
    pulls: Arc<Semaphore>,
    /// Bulk bytes of requests without an answer.
    owed_bytes: AtomicU64,
    pulse: Arc<Pulse>,
    end: CancellationToken,
}

/// A request's place among those in progress; free again when its answer was sent.
type Place = Option<OwnedSemaphorePermit>;

/// What a request holds until it is answered.
struct Held {
    place: Place,
    credit: u64,
    landing: Option<Landing>,
    /// Of the memory that users may fill together.
    _share: Option<OwnedSemaphorePermit>,
    _message: Option<OwnedSemaphorePermit>,
}

/// What became of a request's bulk bytes.
enum Taken {
    Bulk(Buf, Option<OwnedSemaphorePermit>, Option<Coming>),
    Refused(Status),
}

/// Bulk bytes that are not there yet, and their turn.
struct Coming(Pulling, OwnedSemaphorePermit);

impl Connection {
    pub(super) fn new(
        shared: Arc<Shared>,
        (peer, from): (Peer, Option<IpAddr>),
        pulse: Arc<Pulse>,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared,
            peer,
            from,
            outbox: Outbox::new(),
            places: Arc::new(Semaphore::new(REQUESTS_MAX as usize)),
            pulls: Arc::new(Semaphore::new(PULLS_MAX)),
            owed_bytes: AtomicU64::new(0),
            pulse,
            end: CancellationToken::new(),
        })
    }

    /// Serves until the client leaves, the connection breaks, or the server stops and what was in
    /// progress is answered.
    pub(super) async fn run(self: Arc<Self>, sender: Sender, receiver: Receiver) -> LinkError {
        self.pulse.heard(0);
        let writer = tokio::spawn(self.clone().write(sender));
        let ended = tokio::select! {
            biased;
            ended = self.receive(receiver) => ended,
            () = self.end.cancelled() => Ok(()),
            () = self.drained() => Ok(()),
        };
        self.end.cancel();
        let wrote = writer.await;
        let unsent = self.outbox.close();
        tracing::trace!(answers = unsent.len(), "not sent at the end of a connection");
        match (ended, wrote) {
            (Err(why), _) | (Ok(()), Ok(Err(why))) => why,
            (Ok(()), _) => LinkError::Stopped,
        }
    }

    async fn write(self: Arc<Self>, mut sender: Sender) -> Result<(), LinkError> {
        let version = || self.shared.config.routing.version().0;
        let sending = self.outbox.send_all(&mut sender, &self.pulse, version);
        let ended = tokio::select! {
            biased;
            ended = sending => ended,
            () = self.end.cancelled() => Ok(()),
        };
        self.end.cancel();
        if ended.is_ok() && timeout(FINISH_MAX, sender.finish()).await.is_err() {
            tracing::debug!("a client did not take its last answers");
        }
        ended
    }

    /// Once the server stops: until all requests in progress are answered, or their time is up.
    async fn drained(&self) {
        self.shared.stop.cancelled().await;
        let all = timeout(DRAIN_MAX, self.places.acquire_many(REQUESTS_MAX)).await;
        if all.is_err() {
            tracing::warn!("requests were still in progress when the server stopped");
        }
    }

    async fn receive(self: &Arc<Self>, mut receiver: Receiver) -> Result<(), LinkError> {
        let mut known_version = 0;
        let mut checked = None;
        loop {
            let head = receiver.head().await?;
            // Daemons alone spread rumours: a user could claim any version, and be asked about for ever.
            let spoken_of = head.header.routing_version;
            if matches!(self.peer, Peer::Daemon) && spoken_of > known_version {
                known_version = spoken_of;
                self.shared.config.routing.heard_of(RoutingVersion(known_version));
            }
            match head.header.kind {
                Kind::Alive => continue,
                Kind::Request => (),
                Kind::Post if head.header.bulk_bytes == 0 => (),
                other => return Err(FrameError::Unexpected(other).into()),
            }
            self.still_welcome(&mut checked).map_err(LinkError::Refused)?;
            self.request(head, &mut receiver).await?;
        }
    }

    /// A token may expire or be revoked while its connection is open.
    fn still_welcome(&self, checked: &mut Option<RoutingVersion>) -> Result<(), Status> {
        let Peer::User(claims) = &self.peer else { return Ok(()) };
        let version = self.shared.config.routing.version();
        if *checked == Some(version) {
            return check_claims(claims, now_s(), &[]);
        }
        *checked = Some(version);
        check_claims(claims, now_s(), &self.shared.config.routing.get().revoked_tokens)
    }

    async fn request(
        self: &Arc<Self>,
        head: Head,
        receiver: &mut Receiver,
    ) -> Result<(), LinkError> {
        let header = head.header;
        self.pulse.called();
        self.pulse.brought(head.bytes());
        let wait = Duration::from_millis(header.timeout_ms.into());
        let deadline = clock::now() + wait;
        let credit = u64::from(header.bulk_bytes);
        let landing = head.landing.map(Landing::Theirs);
        if head.landed {
            return Err(FrameError::BulkMisplaced.into());
        }
        self.owe(credit)?;
        if self.shared.stop.is_cancelled() {
            receiver.skip(header.bulk_bytes as usize).await?;
            let held = Held { place: None, credit, landing, _share: None, _message: None };
            let refused = Status::new(Code::ShuttingDown, "this server is stopping");
            self.answer(&header, held, Err(refused));
            return Ok(());
        }
        let place = self.place().await;
        let message = self.message_share(header.body_bytes()).await;
        let (refusal, bulk, share, coming) = match self.bulk(&header, deadline, receiver).await? {
            Taken::Bulk(bulk, share, coming) => (None, bulk, share, coming),
            Taken::Refused(status) => (Some(status), Buf::empty(), None, None),
        };
        let held = Held { place: Some(place), credit, landing, _share: share, _message: message };
        let Some(method) = self.shared.router.method(header.method) else {
            self.answer(&header, held, Err(no_such_method(header.method)));
            return Ok(());
        };
        if let Some(status) = refusal {
            self.shared.counters.begin(method);
            self.shared.counters.end(method, true);
            self.answer(&header, held, Err(status));
            return Ok(());
        }
        let cx = Context {
            peer: self.peer.clone(),
            from: self.from,
            deadline,
            routing_version: header.routing_version,
        };
        let request = Request { method: header.method, cx, message: head.message, bulk };
        match coming {
            None => self.handle(method, request, header, held),
            Some(coming) => self.handle_after(coming, method, request, header, held),
        }
        Ok(())
    }

    /// Once its bulk bytes are there. Meanwhile the next request's may come.
    fn handle_after(
        self: &Arc<Self>,
        Coming(pulling, turn): Coming,
        method: Method,
        mut request: Request,
        header: Header,
        held: Held,
    ) {
        let connection = self.clone();
        tokio::spawn(async move {
            let pulled = tokio::select! {
                biased;
                pulled = pulling.finish(std::mem::take(&mut request.bulk)) => pulled,
                // Nobody would hear the answer. What the device still writes to is the pair's.
                () = connection.end.cancelled() => return,
            };
            match pulled {
                Ok(bulk) => {
                    drop(turn);
                    request.bulk = bulk;
                    connection.handle(method, request, header, held);
                }
                Err(why) => {
                    tracing::debug!(%why, "a request's bulk bytes did not come");
                    connection.end.cancel();
                }
            }
        });
    }

    fn handle(self: &Arc<Self>, method: Method, request: Request, header: Header, held: Held) {
        let started = clock::now();
        let deadline = request.cx.deadline;
        self.shared.counters.begin(method);
        let work = self.shared.router.call(request);
        let connection = self.clone();
        tokio::spawn(async move {
            let mut result = work.await;
            let shared = &connection.shared;
            shared.counters.end(method, result.is_err());
            shared.observe(
                method,
                clock::now().saturating_duration_since(started),
                result.as_ref().err(),
            );
            if clock::now() > deadline && result.is_ok() {
                result = Err(Status::new(Code::Timeout, "the answer came after the deadline"));
            }
            connection.answer(&header, held, result);
        });
    }

    async fn place(&self) -> OwnedSemaphorePermit {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return place;
        }
        let _paused = self.pulse.pause();
        self.places.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    async fn turn(&self) -> OwnedSemaphorePermit {
        self.pulls.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// A large message's part of what users' messages may hold together.
    async fn message_share(&self, len: usize) -> Option<OwnedSemaphorePermit> {
        if len <= SMALL_MESSAGE_BYTES || matches!(self.peer, Peer::Daemon) {
            return None;
        }
        let _paused = self.pulse.pause();
        let bytes = u32::try_from(len).expect("a user's message is short");
        let share = self.shared.user_messages.clone().acquire_many_owned(bytes).await;
        Some(share.expect("the semaphore is never closed"))
    }

    /// Counts bulk bytes against the credit that the welcome granted. One payload above it is fine
    /// when it is alone.
    fn owe(&self, bytes: u64) -> Result<(), LinkError> {
        let before = self.owed_bytes.fetch_add(bytes, Ordering::Relaxed);
        let granted = u64::from(self.shared.welcome.credit_bytes);
        if bytes > 0 && before > 0 && before + bytes > granted {
            return Err(LinkError::Refused(Status::new(
                Code::BadFrame,
                format!("{} bulk bytes are in flight, {granted} were granted", before + bytes),
            )));
        }
        Ok(())
    }

    /// Reads the request's bulk bytes into a pool buffer, as soon as there is one.
    async fn bulk(
        &self,
        header: &Header,
        deadline: std::time::Instant,
        receiver: &mut Receiver,
    ) -> Result<Taken, LinkError> {
        let len = header.bulk_bytes as usize;
        if len == 0 {
            return Ok(Taken::Bulk(Buf::empty(), None, None));
        }
        let memory = &self.shared.memory;
        let taken = match memory.try_take(&self.peer, len) {
            Some(taken) => Ok(taken),
            None => {
                let _paused = self.pulse.pause();
                timeout_at(deadline.into(), memory.take(&self.peer, len)).await
            }
        };
        if let Ok((mut bulk, share)) = taken {
            let coming = match receiver.detach()? {
                Some(pulling) => Some(Coming(pulling, self.turn().await)),
                None => {
                    receiver.bulk(&mut bulk).await?;
                    None
                }
            };
            return Ok(Taken::Bulk(bulk, share, coming));
        }
        receiver.skip(len).await?;
        let detail = format!("no buffer for {len} bytes before the deadline: all are in use");
        Ok(Taken::Refused(Status::new(Code::Busy, detail)))
    }

    fn answer(&self, header: &Header, held: Held, result: Result<Reply, Status>) {
        if header.kind == Kind::Post {
            if let Err(status) = result {
                tracing::debug!(%status, method = header.method, "a posted request failed");
            }
            return;
        }
        let (kind, reply) = match result.and_then(bounded) {
            Ok(reply) => (Kind::Reply, reply),
            Err(status) => {
                let head = encode_message(&pb::Status::from(status));
                (Kind::Failure, Reply { head, bulk: Vec::new() })
            }
        };
        let version = self.shared.config.routing.version().0;
        let mut answer = Header::new(kind, header.id, version);
        answer.method = header.method;
        let mut frame = Frame::new(answer, reply.head, reply.bulk);
        frame.landing = held.landing;
        self.pulse.took(frame.bytes());
        // Before the client can see the answer and use the credit again.
        self.owed_bytes.fetch_sub(held.credit, Ordering::Relaxed);
        if self.outbox.push(frame, held.place).is_err() {
            tracing::trace!("an answer found its connection closed");
        }
    }
}

fn bounded(reply: Reply) -> Result<Reply, Status> {
    let message = reply.head.len() - HEADER_BYTES;
    let bulk: usize = reply.bulk.iter().map(|part| part.len()).sum();
    if message > MESSAGE_BYTES_MAX || bulk > BULK_BYTES_MAX {
        let detail = format!("an answer of {message} message and {bulk} bulk bytes is too long");
        tracing::error!(detail, "a handler broke the bounds of a reply");
        return Err(Status::new(Code::Internal, detail));
    }
    Ok(reply)
}

const _: () = assert!(BULK_BYTES_MAX / PAGE_BYTES < u32::MAX as usize);
