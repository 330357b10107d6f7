//! Frames by RDMA: heads as messages of a pair, bulk bytes by READ and WRITE of the server alone.
//!
//! Owns this process's devices and what is registered with them ([`Rdma`]), the choice of a place toward a peer
//! ([`ways`]), and how a TCP connection becomes one by RDMA ([`upgrade`]). A server shows nobody any memory. A client
//! shows the slabs that its buffers are cut from; see [`crate::onesided`] for what is made of that.
//!
//! RDMA is never a condition: whatever is missing or does not work, the connection stays with TCP, and one
//! warning says why. A place that failed toward a peer is left out there for a minute. Devices are open as long as
//! connections leave by them: one that appears later serves like the others, and one that is taken away is let go of.
//!
//! **Invariant:** a connection that must be encrypted does not come here unless `trusted` says so.

mod classes;
mod halves;
mod shared_pair;
mod staging;
mod upgrade;
mod ways;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

pub use classes::{Classes, Workload};
use ff2_verbs::{Access, Device, Domain, Endpoint, Pair, Place, Pool, Settings, Shared};
pub use ff2_verbs::{Class, Error as RdmaError, place::Subnet};
pub(crate) use halves::{Incoming, Outgoing, Pulling};
use parking_lot::Mutex;
use staging::Staging;
pub(crate) use upgrade::{Answering, Offer};
use ways::Ways;

use crate::{
    buf::Slab,
    limits::{PEERS_MAX, RDMA_MESSAGE_BYTES, RDMA_MESSAGES, RDMA_PAUSE, RDMA_WORKS},
};

/// What an administrator says of RDMA.
#[derive(Clone, Debug)]
pub struct RdmaConfig {
    /// Also toward peers on this host, rather than by shared memory; each peer that is reached otherwise is warned of.
    pub demanded: bool,
    /// Connections leave from places within them, in their order; empty: from where the route to the peer leads.
    pub subnets: Vec<Subnet>,
    /// The network is as good as encryption.
    pub trusted: bool,
    pub classes: Classes,
    /// What this process's own calls carry.
    pub workload: Workload,
    /// Messages that a peer may send on one connection before they are read. Each has 8 KiB of pinned memory, and
    /// half as many those on their way out.
    pub messages: u32,
    /// How long a place that failed toward a peer is left out there, and the first pause before a connection that fell
    /// back to TCP tries again.
    pub pause: Duration,
}

impl Default for RdmaConfig {
    fn default() -> Self {
        Self {
            demanded: false,
            subnets: Vec::new(),
            trusted: false,
            classes: Classes::default(),
            workload: Workload::default(),
            messages: RDMA_MESSAGES,
            pause: RDMA_PAUSE,
        }
    }
}

/// The RDMA of a process: one for its servers and all that it calls.
#[derive(Debug)]
pub struct Rdma {
    config: RdmaConfig,
    /// By the devices' names: those that connections leave by.
    rails: Mutex<HashMap<String, Weak<Rail>>>,
    ways: Ways,
    /// What was warned of: by peer and reason.
    told: Mutex<HashSet<(String, String)>>,
}

/// A device, and what is registered with it. It is let go of with its last connection: a driver that takes it away may
/// wait for that.
struct Rail {
    domain: Arc<Domain>,
    /// Registered once for all connections, by id.
    slabs: Mutex<HashMap<(u64, Access), Weak<Shared>>>,
    /// Made for the first client of a server: who only calls needs none.
    staging: Mutex<Option<Arc<Staging>>>,
}

impl Rdma {
    /// Tries all devices of this host. Where there is none yet and none is demanded, those that come later serve.
    ///
    /// # Errors
    /// Why there can be no RDMA here: TCP serves then.
    pub fn open(config: RdmaConfig) -> Result<Arc<Self>, RdmaError> {
        let names = match ff2_verbs::available() {
            Err(RdmaError::NoDevice) if !config.demanded => {
                tracing::info!("no RDMA device here yet: TCP serves");
                Vec::new()
            }
            found => found?,
        };
        for name in names {
            Domain::new(&Device::open(&name)?)?;
        }
        let ways = Ways::new(config.subnets.clone(), config.pause)?;
        let (rails, told) = (Mutex::default(), Mutex::default());
        Ok(Arc::new(Self { config, rails, ways, told }))
    }

    /// Rather than shared memory, where both are possible.
    pub(crate) fn is_demanded(&self) -> bool {
        self.config.demanded
    }

    /// Of this process's own calls.
    pub(crate) fn workload(&self) -> Workload {
        self.config.workload
    }

    /// Before a connection that fell back tries again for the first time.
    pub(crate) fn pause(&self) -> Duration {
        self.config.pause
    }

    /// Whether a connection may go by RDMA at all.
    pub(crate) fn may_carry(&self, encrypted: bool) -> bool {
        self.config.trusted || !encrypted
    }

    /// A connection from this place to this peer broke, or could not be made: others are taken for a minute.
    pub(crate) fn avoid(&self, address: &str, place: &Place, why: &str) {
        self.ways.avoid(address, place);
        self.fell_back(address, &format!("from {place}: {why}"), true);
    }

    /// Says once why a peer is not reached by RDMA; `amiss`: though both could.
    fn fell_back(&self, address: &str, why: &str, amiss: bool) {
        let mut told = self.told.lock();
        if told.len() >= PEERS_MAX {
            told.clear();
        }
        if !told.insert((address.into(), why.into())) {
            return;
        }
        if amiss || self.config.demanded {
            tracing::warn!(%address, why, "no RDMA to this peer: TCP serves");
        } else {
            tracing::info!(%address, why, "no RDMA to this peer: TCP serves");
        }
    }

    /// One end of a connection, not connected yet. Makes calls that take milliseconds.
    fn end(&self, place: &Place, class: Class, access: Access) -> Result<End, RdmaError> {
        let rail = self.rail(&place.device)?;
        let messages = self.config.messages;
        let settings = Settings { works: RDMA_WORKS, messages, class, access };
        let pool = |count| {
            let domains = std::slice::from_ref(&rail.domain);
            Pool::new(domains, count, RDMA_MESSAGE_BYTES as u32, Access::Local)
        };
        let (incoming, outgoing) = (pool(settings.receives())?, pool(messages.div_ceil(2))?);
        let pair = Pair::new(&rail.domain, place, &incoming, settings)?;
        let staging = match access {
            Access::Local => Some(rail.staging()?),
            Access::Peers => None,
        };
        Ok(End { pair, place: place.clone(), outgoing, rail: rail.clone(), staging })
    }

    /// The device of this name, which is opened if it is not yet, or if another one had the name when it was.
    fn rail(&self, name: &str) -> Result<Arc<Rail>, RdmaError> {
        let mut rails = self.rails.lock();
        let known = rails.get(name).and_then(Weak::upgrade);
        if let Some(rail) = known.filter(|rail| rail.is_there()) {
            return Ok(rail);
        }
        let domain = Domain::new(&Device::open(name)?)?;
        let rail = Rail { domain, slabs: Mutex::default(), staging: Mutex::default() };
        let rail = Arc::new(rail);
        rails.insert(name.to_owned(), Arc::downgrade(&rail));
        Ok(rail)
    }
}

/// See [`Rdma::end`].
struct End {
    pair: Pair,
    place: Place,
    /// For messages that are sent.
    outgoing: Arc<Pool>,
    rail: Arc<Rail>,
    /// Of a server, which moves the bulk bytes.
    staging: Option<Arc<Staging>>,
}

impl End {
    /// For the handshake.
    fn endpoint(&self) -> [u8; Endpoint::BYTES] {
        self.pair.endpoint().encode()
    }

    /// Goes on with what the peer says of its end.
    fn connect(&mut self, endpoint: &[u8]) -> Result<(), RdmaError> {
        let endpoint = Endpoint::decode(endpoint)?;
        if (endpoint.message_bytes() as usize) < crate::frame::HEAD_BYTES_MIN {
            return Err(RdmaError::Endpoint("its messages are too short for a head"));
        }
        self.pair.connect(&endpoint)
    }
}

impl Rail {
    /// Whether the device was not taken away.
    fn is_there(&self) -> bool {
        self.domain.device().is_there()
    }

    fn staging(&self) -> Result<Arc<Staging>, RdmaError> {
        let mut staging = self.staging.lock();
        if let Some(made) = &*staging {
            return Ok(made.clone());
        }
        Ok(staging.insert(Staging::new(&self.domain)?).clone())
    }

    /// Registers a slab, if it is not yet.
    fn share(&self, slab: &Arc<Slab>, access: Access) -> Result<Arc<Shared>, RdmaError> {
        let mut slabs = self.slabs.lock();
        if let Some(known) = slabs.get(&(slab.id(), access)).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let shared = Arc::new(Shared::new(&self.domain, slab.clone(), access)?);
        slabs.retain(|_, other| other.strong_count() > 0);
        slabs.insert((slab.id(), access), Arc::downgrade(&shared));
        Ok(shared)
    }
}

impl fmt::Debug for Rail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rail({:?}, {} slabs)", self.domain, self.slabs.lock().len())
    }
}

/// With what lies behind it.
fn reason(error: RdmaError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}
