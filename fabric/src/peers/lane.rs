//! One connection to a peer over time: made when first needed, made again after it broke.
//!
//! Connecting is a task of its own, so that a caller that gives up does not stop it for the others.
//! After a failure callers get it at once until a pause is over; the pause doubles up to a second.
//! A server that has an address in our zone of the network is reached by it, and by its others where it does not
//! answer. A connection that came about by a farther address, or fell back to TCP, serves on while better is tried now
//! and then ([`way_back`]); when that comes about, calls go by it, and the old one ends when what is under way on it is
//! answered.

mod way_back;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use ff2_proto::{Code, Retry, Status};
use parking_lot::Mutex;
use tokio::{
    net::{TcpStream, UnixStream},
    time::{timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use way_back::{Shortfall, WayBack};

use super::{
    Owed, Shared,
    connection::{Broke, Connection},
};
use crate::{
    auth::Secret,
    clock,
    handshake::{self, Approach, Welcome},
    limits::{LOCAL_PAUSE, RDMA_PLACES_TRIED, RECONNECT_MAX, RECONNECT_MIN},
    mem,
    pulse::Pulse,
    rdma::{Offer, Workload},
    shm, tcp,
    transport::{self, LinkError, Receiver, Sender},
};

#[derive(Debug)]
pub(super) struct Lane {
    kind: transport::Lane,
    state: Mutex<State>,
    /// When a local connection ended other than by a clean close.
    local_broke: Mutex<Option<Instant>>,
    way_back: WayBack,
}

#[derive(Debug)]
enum State {
    Idle,
    /// Cancelled when the task has changed the state, or is gone.
    Connecting(CancellationToken),
    Open(Arc<Connection>),
    Failed {
        status: Status,
        until: Instant,
        pause: Duration,
    },
    /// The process is done with this peer.
    Stopped,
}

impl Lane {
    pub(super) fn new(kind: transport::Lane) -> Arc<Self> {
        let (state, local_broke) = (Mutex::new(State::Idle), Mutex::new(None));
        Arc::new(Self { kind, state, local_broke, way_back: WayBack::default() })
    }

    /// How soon a call would go out by it: the larger, the sooner.
    pub(super) fn readiness(&self) -> Readiness {
        match &*self.state.lock() {
            State::Open(connection) if connection.is_open() => {
                Readiness::FreeSlots(connection.free_slots())
            }
            State::Failed { until, .. } if *until > clock::now() => Readiness::Failed,
            State::Stopped => Readiness::Failed,
            State::Idle | State::Connecting(_) | State::Open(_) | State::Failed { .. } => {
                Readiness::NotOpen
            }
        }
    }

    pub(super) fn add_owed(&self, owed: &mut Owed) {
        match &*self.state.lock() {
            State::Open(connection) if connection.is_open() => connection.add_owed(owed),
            _ => {}
        }
    }

    /// The open connection; connects if there is none.
    pub(super) async fn connection(
        self: &Arc<Self>,
        address: &Arc<str>,
        shared: &Arc<Shared>,
        deadline: Instant,
    ) -> Result<Arc<Connection>, Status> {
        loop {
            let done = match self.look(address, shared) {
                Look::Open(connection) => return Ok(connection),
                Look::Failed(status) => return Err(status),
                Look::Connecting(done) => done,
            };
            let waited = timeout_at(deadline.into(), done.cancelled()).await;
            if waited.is_err() {
                let detail = format!("connecting to {address} took longer than the call may wait");
                return Err(Status::new(Code::Unreachable, detail));
            }
        }
    }

    fn look(self: &Arc<Self>, address: &Arc<str>, shared: &Arc<Shared>) -> Look {
        let mut state = self.state.lock();
        let pause = match &*state {
            State::Open(connection) if connection.is_open() => {
                if self.way_back.begin() {
                    tokio::spawn(self.clone().come_back(
                        connection.clone(),
                        address.clone(),
                        shared.clone(),
                    ));
                }
                return Look::Open(connection.clone());
            }
            State::Connecting(done) if !done.is_cancelled() => {
                return Look::Connecting(done.clone());
            }
            State::Failed { status, until, .. } if *until > clock::now() => {
                return Look::Failed(status.clone());
            }
            State::Stopped => {
                return Look::Failed(Status::new(Code::ShuttingDown, "this process is stopping"));
            }
            State::Failed { pause, .. } => (*pause * 2).min(RECONNECT_MAX),
            State::Open(connection) => {
                self.learn(connection, address, shared);
                RECONNECT_MIN
            }
            // A task that ended without a word belonged to a runtime that is gone.
            State::Idle | State::Connecting(_) => RECONNECT_MIN,
        };
        let done = CancellationToken::new();
        let working = done.clone().drop_guard();
        *state = State::Connecting(done.clone());
        drop(state);
        let (lane, address, shared) = (self.clone(), address.clone(), shared.clone());
        tokio::spawn(async move {
            let next = match lane.connect(&address, &shared).await {
                Ok(Dialled { connection, shortfall, pause }) => {
                    lane.way_back.settled(shortfall, pause);
                    State::Open(connection)
                }
                Err(status) => {
                    tracing::debug!(%address, %status, "connecting failed");
                    State::Failed { status, until: clock::now() + pause, pause }
                }
            };
            lane.settle(next);
            drop(working);
        });
        Look::Connecting(done)
    }

    /// Looks whether a nearer address or RDMA serves by now, beside the connection that does.
    async fn come_back(
        self: Arc<Self>,
        old: Arc<Connection>,
        address: Arc<str>,
        shared: Arc<Shared>,
    ) {
        let Dialled { connection: new, shortfall, pause } =
            match self.connect(&address, &shared).await {
                Ok(dialled) => dialled,
                Err(status) => {
                    tracing::debug!(%address, %status, "no better way");
                    return self.way_back.failed();
                }
            };
        {
            let mut state = self.state.lock();
            match &*state {
                State::Open(open) if !Arc::ptr_eq(open, &old) => return new.stop(),
                State::Open(_) if self.way_back.is_better(shortfall) => *state = State::Open(new),
                State::Open(_) => {
                    new.stop();
                    return self.way_back.failed();
                }
                // It broke meanwhile, and whoever called has another one.
                _ => return new.stop(),
            }
            self.way_back.settled(shortfall, pause);
        }
        tracing::info!(%address, ?shortfall, "this peer is reached in a better way again");
        old.retire().await;
    }

    /// From a connection that ended: for a while another way is taken than one that broke.
    fn learn(&self, connection: &Connection, address: &Arc<str>, shared: &Shared) {
        match (connection.broke(), &shared.config.rdma) {
            (Some(Broke { why, place: Some(place) }), Some(rdma)) => {
                rdma.avoid(address, place, why);
            }
            (Some(Broke { place: None, .. }), _) if connection.shares_memory() => {
                *self.local_broke.lock() = Some(clock::now());
            }
            _ => {}
        }
    }

    fn settle(&self, next: State) {
        let mut state = self.state.lock();
        match (&*state, next) {
            (State::Stopped, State::Open(connection)) => connection.stop(),
            (State::Stopped, _) => (),
            (_, next) => *state = next,
        }
    }

    async fn connect(&self, address: &Arc<str>, shared: &Shared) -> Result<Dialled, Status> {
        let patience = shared.tuning.connect_timeout;
        match timeout(patience, self.dial(address, shared)).await {
            Ok(Ok(dialled)) => Ok(dialled),
            Ok(Err(why)) => Err(refusal(address, why)),
            Err(_) => {
                let detail = format!("{address} did not answer within {} s", patience.as_secs());
                Err(Status::new(Code::Unreachable, detail))
            }
        }
    }

    async fn dial(&self, address: &Arc<str>, shared: &Shared) -> Result<Dialled, LinkError> {
        let pulse = || Pulse::new(shared.tuning, shared.counters.clone());
        let mut nearer = 0;
        let link = match address.strip_prefix(mem::SCHEME) {
            Some(name) => {
                let pulse = pulse();
                let ends = mem::connect(name).await?.split(&pulse);
                self.join(ends, pulse, shared, Approach::by_network(self.kind), None).await?
            }
            None => {
                let memory = shared.tuning.shared_memory && self.trusts_local();
                let remote;
                (remote, nearer) = self.dial_nearest(address, shared, memory).await?;
                let name = &remote.welcome.local_name;
                let offered = memory && remote.same_host && !name.is_empty();
                let local = match offered && !remote.ends.0.shares_memory() {
                    true => self.join_locally(name, shared).await,
                    false => None,
                };
                if local.is_some() {
                    nearer = 0;
                }
                local.unwrap_or(remote)
            }
        };
        // Silence counts from the handshake's end.
        link.pulse.heard(0);
        tracing::debug!(%address, kind = ?self.kind, "connected");
        let (pool, routing) = (shared.config.pool.clone(), shared.config.routing.clone());
        let Joined { ends, welcome, pulse, may_rdma, .. } = link;
        let by_tcp = may_rdma && !ends.0.shares_memory();
        let far_pause = shared.tuning.far_pause;
        let pause = match &shared.config.rdma {
            Some(rdma) if nearer == 0 => rdma.pause(),
            _ => far_pause,
        };
        let connection = Connection::start(address.clone(), ends, welcome, pulse, pool, routing);
        Ok(Dialled { connection, shortfall: Shortfall { nearer, by_tcp }, pause })
    }

    /// By the first of the server's addresses that answers, the nearest first; and how many did not. Each has its part
    /// of the time that the whole has, so that one whose packets are lost leaves enough to the next.
    async fn dial_nearest(
        &self,
        address: &Arc<str>,
        shared: &Shared,
        memory: bool,
    ) -> Result<(Joined, usize), LinkError> {
        let ways = shared.config.routing.get().ways_to(address, &shared.config.zone);
        let part = shared.tuning.connect_timeout / u32::try_from(ways.len()).unwrap_or(u32::MAX);
        let last = ways.len() - 1;
        for (passed, way) in ways[..last].iter().enumerate() {
            match timeout(part, self.dial_network((address, way), shared, memory)).await {
                Ok(Ok(joined)) => return Ok((joined, passed)),
                // It answers, and would do so by its other addresses.
                Ok(Err(why @ LinkError::Refused(_))) => return Err(why),
                Ok(Err(why)) => tracing::debug!(%address, way, %why, "an address does not answer"),
                Err(_) => tracing::debug!(%address, way, "an address is silent"),
            }
        }
        Ok((self.dial_network((address, &ways[last]), shared, memory).await?, last))
    }

    /// By RDMA where that is possible; from another place at once, if there is one, where the first does not serve.
    async fn dial_network(
        &self,
        server: (&Arc<str>, &str),
        shared: &Shared,
        memory: bool,
    ) -> Result<Joined, LinkError> {
        for _ in 1..RDMA_PLACES_TRIED {
            let (joined, serves) = self.dial_once(server, shared, memory).await?;
            if serves {
                return Ok(joined);
            }
        }
        Ok(self.dial_once(server, shared, memory).await?.0)
    }

    /// The connection, and whether it goes by RDMA if it was to. A server is who it is by the address that it is known
    /// by, also where it is reached by another (`way`): its certificate is for that one.
    async fn dial_once(
        &self,
        (address, way): (&Arc<str>, &str),
        shared: &Shared,
        memory: bool,
    ) -> Result<(Joined, bool), LinkError> {
        let stream = TcpStream::connect(way).await?;
        let peer = stream.peer_addr()?.ip().to_canonical();
        let same_host = peer == stream.local_addr()?.ip().to_canonical();
        let pulse = Pulse::new(shared.tuning, shared.counters.clone());
        let config = &shared.config;
        let tls = config.tls.as_ref();
        let tls = tls.filter(|tls| tls.covers(&config.routing.get(), address));
        let (ends, binding) = match tls {
            Some(tls) => {
                let (stream, secret) = tls.connect(address, stream).await?;
                (tcp::split_secured(stream, &pulse)?, Some(secret))
            }
            None => (tcp::split(stream, &pulse)?, None),
        };
        let by_memory = memory && same_host;
        let rdma = config.rdma.as_ref().filter(|rdma| rdma.is_demanded() || !by_memory);
        let may_rdma = rdma.is_some_and(|rdma| rdma.may_carry(binding.is_some()));
        let offer = match rdma {
            Some(rdma) => rdma.offer(address, peer, self.kind, binding.is_some()).await,
            None => None,
        };
        let rdma = offer.as_ref().map(Offer::endpoint).unwrap_or_default();
        let workload = config.rdma.as_ref().map_or(Workload::Files, |rdma| rdma.workload());
        let approach = Approach { rdma, workload, ..Approach::by_network(self.kind) };
        let joined = self.join(ends, pulse, shared, approach, binding.as_ref()).await?;
        let mut joined = Joined { same_host, may_rdma, ..joined };
        let Some(offer) = offer else { return Ok((joined, true)) };
        joined.ends = offer.settle(joined.ends, &joined.welcome, &joined.pulse).await?;
        let serves = joined.ends.0.shares_memory();
        Ok((joined, serves))
    }

    /// By the server's local socket, if that is where we are too.
    async fn join_locally(&self, name: &str, shared: &Shared) -> Option<Joined> {
        let pulse = Pulse::new(shared.tuning, shared.counters.clone());
        let joined = timeout(shared.tuning.connect_timeout / 3, async {
            let stream = UnixStream::connect(shm::path_of(name)).await?;
            let approach = Approach { local_name: name, ..Approach::by_network(self.kind) };
            self.join(shm::split(stream, &pulse)?, pulse.clone(), shared, approach, None).await
        });
        let joined = joined.await.unwrap_or(Err(LinkError::Stalled(0)));
        joined.inspect_err(|why| tracing::debug!(%why, "no local connection")).ok()
    }

    /// Not for a while after one broke: by the network all goes on, if memory cannot be shared.
    fn trusts_local(&self) -> bool {
        self.local_broke.lock().is_none_or(|broke| clock::now() > broke + LOCAL_PAUSE)
    }

    async fn join(
        &self,
        (mut sender, mut receiver): (Sender, Receiver),
        pulse: Arc<Pulse>,
        shared: &Shared,
        approach: Approach<'_>,
        binding: Option<&Secret>,
    ) -> Result<Joined, LinkError> {
        let (identity, cluster) = (&shared.config.identity, &shared.config.cluster_id);
        let ends = (&mut sender, &mut receiver);
        let welcome = handshake::join(ends.0, ends.1, identity, cluster, approach, binding).await?;
        Ok(Joined { ends: (sender, receiver), welcome, pulse, same_host: false, may_rdma: false })
    }

    pub(super) fn stop(&self) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Stopped);
        if let State::Open(connection) = before {
            connection.stop();
        }
    }
}

/// A connection after its handshake.
struct Joined {
    ends: (Sender, Receiver),
    welcome: Welcome,
    pulse: Arc<Pulse>,
    /// The server's address is one of ours.
    same_host: bool,
    /// By RDMA it would go, if both sides could.
    may_rdma: bool,
}

struct Dialled {
    connection: Arc<Connection>,
    shortfall: Shortfall,
    /// How long it stays so at least.
    pause: Duration,
}

/// In this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Readiness {
    Failed,
    FreeSlots(usize),
    NotOpen,
}

enum Look {
    Open(Arc<Connection>),
    Failed(Status),
    Connecting(CancellationToken),
}

/// A refusal that repeats is the person's to mend: it is logged where it is seen first.
fn refusal(address: &str, why: LinkError) -> Status {
    match why {
        LinkError::Refused(status) => {
            if status.retry() == Retry::Never {
                tracing::warn!(%address, %status, "the connection was refused");
            }
            Status { detail: format!("{address}: {}", status.detail), ..status }
        }
        LinkError::Frame(error) => {
            Status::new(Code::BadFrame, format!("the answer of {address} {error}"))
        }
        // The call itself is in order: with another routing it may find its peer.
        LinkError::Io(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Status::new(Code::Unreachable, format!("`{address}` is no address (host:port)"))
        }
        why => Status::new(Code::Unreachable, format!("cannot connect to {address}: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_failed_is_the_last_choice_until_its_pause_is_over() {
        let lane = Lane::new(transport::Lane::Bulk);
        assert_eq!(lane.readiness(), Readiness::NotOpen);
        assert!(Readiness::Failed < Readiness::FreeSlots(0));
        assert!(Readiness::FreeSlots(usize::MAX) < Readiness::NotOpen);
        let failed =
            |until| State::Failed { status: Code::Unreachable.into(), until, pause: RECONNECT_MIN };
        lane.settle(failed(clock::now() + RECONNECT_MAX));
        assert_eq!(lane.readiness(), Readiness::Failed);
        lane.settle(failed(clock::now()));
        assert_eq!(lane.readiness(), Readiness::NotOpen);
    }
}
