//! The client side of all connections of a process: one [`Channel`] for each peer.
//!
//! Owns the connections: a peer has one for small messages and a few for bulk bytes, so that a 4 KiB
//! metadata call never waits behind a 4 MiB payload. They are made when first needed, and closed
//! when the [`Peers`] are dropped. Each runtime of the process has its own, so that the answer to a
//! call comes in on a thread of the caller's runtime. A call is never repeated here once a byte of it may have left.

mod connection;
mod lane;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use connection::{Connection, Outcome, Outgoing};
use ff2_proto::{Code, Status};
use lane::Lane;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use tokio::runtime;

use crate::{
    auth::{ClusterKey, UserToken},
    buf::{Buf, BufPool},
    clock,
    counters::Counters,
    frame::{HEADER_BYTES, encode_message},
    limits::{BULK_BYTES_MAX, BULK_LANES, MESSAGE_BYTES_MAX, PEERS_MAX, SMALL_BULK_BYTES},
    pulse::Tuning,
    rdma::Rdma,
    routing::RoutingCache,
    rpc::{Call, Method, decode},
    tls::ClientTls,
    transport,
};

/// As whom a process connects.
#[derive(Clone, Debug)]
pub enum Identity {
    Daemon(ClusterKey),
    User(UserToken),
}

/// What all connections of a process share.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    pub cluster_id: String,
    pub identity: Identity,
    /// Replies that bring bulk bytes without a place for them land here.
    pub pool: Arc<BufPool>,
    /// Its version travels with every call; it hears of newer ones from the replies.
    pub routing: Arc<RoutingCache>,
    /// What is encrypted over the network; None: nothing.
    pub tls: Option<ClientTls>,
    /// Reaches peers by RDMA where both sides can; None: never.
    pub rdma: Option<Arc<Rdma>>,
    /// The zone of the network that this process is in: servers with an address there are reached by that.
    /// Empty: not told.
    pub zone: String,
}

/// All peers of a process.
#[derive(Debug)]
pub struct Peers {
    shared: Arc<Shared>,
    /// In order, so that they end in the same order each time.
    by_address: Mutex<BTreeMap<Arc<str>, Arc<Link>>>,
}

#[derive(Debug)]
struct Shared {
    config: PeersConfig,
    tuning: Tuning,
    counters: Arc<Counters>,
}

/// A reading of [`Peers::owed`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    /// Calls without an answer.
    pub calls: usize,
    /// Places for requests that they take.
    pub slots: usize,
    /// Bulk bytes of them that count against the servers' credit.
    pub credit_bytes: usize,
    /// Connections that are open.
    pub connections: usize,
}

/// The connections to one peer.
#[derive(Debug)]
struct Link {
    address: Arc<str>,
    shared: Arc<Shared>,
    /// Those of each runtime, in the order of their first calls.
    lanes: RwLock<Vec<(runtime::Id, Arc<Lanes>)>>,
    stopped: AtomicBool,
}

/// The connections to one peer that one runtime drives.
#[derive(Debug)]
struct Lanes {
    small: Arc<Lane>,
    bulk: [Arc<Lane>; BULK_LANES],
    turn: AtomicUsize,
}

impl Peers {
    pub fn new(config: PeersConfig) -> Arc<Self> {
        Self::with_tuning(config, Tuning::default())
    }

    pub fn with_tuning(config: PeersConfig, tuning: Tuning) -> Arc<Self> {
        let shared = Arc::new(Shared { config, tuning, counters: Counters::new() });
        Arc::new(Self { shared, by_address: Mutex::default() })
    }

    /// The way to a peer, `host:port` (or `mem:name` inside a process). Cheap; connects at the first
    /// call, and again whenever a call finds the connection broken.
    pub fn channel(&self, address: &str) -> Channel {
        let mut by_address = self.by_address.lock();
        if let Some(link) = by_address.get(address) {
            return Channel { link: link.clone() };
        }
        if by_address.len() >= PEERS_MAX {
            // Addresses that nobody holds a channel to; they come back when they are asked for.
            by_address.retain(|_, link| Arc::strong_count(link) > 1);
        }
        let address: Arc<str> = address.into();
        let link = Arc::new(Link {
            address: address.clone(),
            shared: self.shared.clone(),
            lanes: RwLock::default(),
            stopped: AtomicBool::new(false),
        });
        by_address.insert(address, link.clone());
        Channel { link }
    }

    /// Calls and bytes of all connections together.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    pub fn pool(&self) -> &Arc<BufPool> {
        &self.shared.config.pool
    }

    /// What the open connections hold for calls that were not answered yet, also for those that
    /// nobody waits for any more. Nothing, once every server has answered.
    pub fn owed(&self) -> Owed {
        let mut owed = Owed::default();
        for link in self.by_address.lock().values() {
            link.for_each_lane(|lane| lane.add_owed(&mut owed));
        }
        owed
    }

    /// Closes every connection; calls in flight fail, later ones too.
    pub fn stop(&self) {
        for link in self.by_address.lock().values() {
            link.stop();
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The way to one peer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Channel {
    link: Arc<Link>,
}

impl Channel {
    pub fn address(&self) -> &str {
        &self.link.address
    }

    /// Makes one call; the generated clients are the way to use it.
    ///
    /// Dropping the future gives the call up: the server may have seen it, the connection stays
    /// usable, and the reply's bytes go nowhere. Fails with `UNREACHABLE` if nothing was sent,
    /// `UNKNOWN_OUTCOME` if the connection broke after something was, `TIMEOUT` at the deadline.
    pub async fn call<Q: Message, R: Message + Default>(
        &self,
        method: Method,
        request: &Q,
        call: Call,
    ) -> Result<(R, Buf), Status> {
        let head = encode_message(request);
        let counters = &self.link.shared.counters;
        counters.begin(method);
        let mut progress = InProgress { counters, method, failed: true };
        let (message, bulk) = self.link.exchange(method, head, call).await?;
        let message = decode(message)?;
        progress.failed = false;
        Ok((message, bulk))
    }
}

impl Channel {
    /// Sends a message that is not answered: whether the server got it is not told. Returns when it is on
    /// its way. Fails with `UNREACHABLE` if it is not, with `TIMEOUT` if that took as long as `timeout`.
    pub async fn post<Q: Message>(
        &self,
        method: Method,
        message: &Q,
        timeout: Duration,
    ) -> Result<(), Status> {
        let head = encode_message(message);
        let counters = &self.link.shared.counters;
        counters.begin(method);
        let mut progress = InProgress { counters, method, failed: true };
        self.link.post(method, head, timeout).await?;
        progress.failed = false;
        Ok(())
    }
}

/// Counts the end of a call, also of one that was dropped.
struct InProgress<'a> {
    counters: &'a Counters,
    method: Method,
    failed: bool,
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.counters.end(self.method, self.failed);
    }
}

impl Link {
    async fn post(&self, method: Method, head: Vec<u8>, timeout: Duration) -> Result<(), Status> {
        let deadline = clock::now() + timeout;
        let len = head.len() - HEADER_BYTES;
        if len > MESSAGE_BYTES_MAX {
            let detail = format!("a message of {} has {len} bytes: above the limit", method.name);
            return Err(Status::new(Code::InvalidArgument, detail));
        }
        let connection = self.connection(0, deadline).await?;
        let posted = connection.post(method.number, head, deadline);
        match tokio::time::timeout_at(deadline.into(), posted).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let detail = format!("the connection to {} was lost", self.address);
                Err(Status::new(Code::Unreachable, detail))
            }
            Err(_) => {
                let detail =
                    format!("{} did not take {} within {timeout:?}", self.address, method.name);
                Err(Status::new(Code::Timeout, detail))
            }
        }
    }

    async fn exchange(
        &self,
        method: Method,
        head: Vec<u8>,
        call: Call,
    ) -> Result<connection::Answered, Status> {
        let deadline = clock::now() + call.timeout;
        let bulk_bytes = call.bulk.iter().map(|part| part.len()).sum();
        if head.len() - HEADER_BYTES > MESSAGE_BYTES_MAX || bulk_bytes > BULK_BYTES_MAX {
            let detail = format!(
                "a call of {} has {} message and {bulk_bytes} bulk bytes: above the limits",
                method.name,
                head.len() - HEADER_BYTES
            );
            return Err(Status::new(Code::InvalidArgument, detail));
        }
        let Call { timeout, bulk, into } = call;
        let call = Outgoing { method: method.number, head, bulk, bulk_bytes, into, deadline };
        let made = self.attempt(call);
        match tokio::time::timeout_at(deadline.into(), made).await {
            Ok(answered) => answered,
            Err(_) => {
                let (name, address) = (method.name, &self.address);
                let detail = format!("{address} did not answer {name} within {timeout:?}");
                Err(Status::new(Code::Timeout, detail))
            }
        }
    }

    async fn attempt(&self, mut call: Outgoing) -> Result<connection::Answered, Status> {
        let expected = call.into.as_ref().map_or(0, |into| into.len()).max(call.bulk_bytes);
        // A connection that broke unnoticed costs one more try; then it is the caller's turn.
        for _ in 0..2 {
            let connection = self.connection(expected, call.deadline).await?;
            match connection.call(call).await {
                Outcome::Answered(answered) => return Ok(answered),
                Outcome::Failed(status) => return Err(status),
                Outcome::NotSent(back) => call = *back,
            }
        }
        let detail = format!("the connection to {} broke twice", self.address);
        Err(Status::new(Code::Unreachable, detail))
    }

    async fn connection(
        &self,
        expected_bytes: usize,
        deadline: std::time::Instant,
    ) -> Result<Arc<Connection>, Status> {
        self.lanes().of(expected_bytes).connection(&self.address, &self.shared, deadline).await
    }

    /// Those of the runtime that this is called in.
    fn lanes(&self) -> Arc<Lanes> {
        let here = runtime::Handle::current().id();
        let find = |lanes: &[(runtime::Id, Arc<Lanes>)]| {
            lanes.iter().find(|(id, _)| *id == here).map(|(_, lanes)| lanes.clone())
        };
        if let Some(found) = find(&self.lanes.read()) {
            return found;
        }
        let mut lanes = self.lanes.write();
        find(&lanes).unwrap_or_else(|| {
            let new = Lanes::new();
            lanes.push((here, new.clone()));
            if self.stopped.load(Relaxed) {
                new.all().for_each(|lane| lane.stop());
            }
            new
        })
    }

    fn for_each_lane(&self, mut each: impl FnMut(&Arc<Lane>)) {
        self.lanes.read().iter().for_each(|(_, lanes)| lanes.all().for_each(&mut each));
    }

    fn stop(&self) {
        // Lanes that are made later see it: both happen under the lock.
        let lanes = self.lanes.write();
        self.stopped.store(true, Relaxed);
        drop(lanes);
        self.for_each_lane(|lane| lane.stop());
    }
}

impl Lanes {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            small: Lane::new(transport::Lane::Small),
            bulk: std::array::from_fn(|_| Lane::new(transport::Lane::Bulk)),
            turn: AtomicUsize::new(0),
        })
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Lane>> {
        std::iter::once(&self.small).chain(&self.bulk)
    }

    /// For a call with so many bulk bytes on the way there or back.
    fn of(&self, expected_bytes: usize) -> &Arc<Lane> {
        if expected_bytes <= SMALL_BULK_BYTES { &self.small } else { self.bulk_lane() }
    }

    /// The bulk connection with the least to do; one that is not open yet counts as idle, one that
    /// failed a moment ago is the last choice.
    fn bulk_lane(&self) -> &Arc<Lane> {
        let turn = self.turn.fetch_add(1, Relaxed);
        let lanes = (0..BULK_LANES).map(|place| &self.bulk[(turn + place) % BULK_LANES]);
        lanes.rev().max_by_key(|lane| lane.readiness()).expect("there is a bulk connection")
    }
}

#[cfg(test)]
mod tests;
