//! How a TCP connection becomes one by RDMA.
//!
//! ```text
//! client -> Hello    { .., rdma: its endpoint }                         both proofs cover it
//! server -> Welcome  { .., rdma: its endpoint } or { .., no_rdma: why }
//! client -> Alive by the pair, and server -> Alive by the pair           within a second
//! client -> Decision { rdma }                                            by TCP
//! ```
//! The client decides, for it alone knows that bytes came through both ways; TCP tells the server, so both
//! always mean the same. All goes by the pair from there on, or by TCP if not. Releases that know nothing of this
//! leave the fields out, and no further frame is exchanged with them.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use ff2_verbs::{Access, Endpoint};
use parking_lot::Mutex;
use prost::Message;
use tokio::time::timeout;

use super::{End, Rdma, RdmaError, Workload, halves::halves, reason};
use crate::{
    frame::{FrameError, HEADER_BYTES, Header, Kind, Limits, encode_message},
    handshake::Welcome,
    limits::HANDSHAKE_BYTES_MAX,
    onesided,
    pulse::Pulse,
    tcp,
    transport::{self, Frame, Lane, LinkError},
};

/// What becomes of the connection.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Decision {
    #[prost(bool, tag = "1")]
    pub(super) rdma: bool,
}

type Ends = (transport::Sender, transport::Receiver);
pub(super) type PairEnds = (onesided::Sender<super::Outgoing>, onesided::Receiver<super::Incoming>);

/// A client's end of a pair that the server does not know of yet.
pub(crate) struct Offer {
    pub(super) end: End,
    address: Arc<str>,
    rdma: Arc<Rdma>,
}

impl Rdma {
    /// The client's end of a pair toward this server; `None`: TCP serves, which was said.
    pub(crate) async fn offer(
        self: &Arc<Self>,
        address: &Arc<str>,
        peer: IpAddr,
        lane: Lane,
        encrypted: bool,
    ) -> Option<Offer> {
        if !self.may_carry(encrypted) {
            self.fell_back(address, MUST_ENCRYPT, true);
            return None;
        }
        let place = match self.ways.toward(address, peer) {
            Ok(place) => place?,
            Err(why) => {
                self.fell_back(address, &why, false);
                return None;
            }
        };
        let (rdma, from) = (self.clone(), place.clone());
        let class = self.config.classes.of(lane, self.config.workload);
        let made = move || rdma.end(&from, class, Access::Peers);
        match blocking(made).await {
            Ok(end) => Some(Offer { end, address: address.clone(), rdma: self.clone() }),
            Err(why) => {
                self.avoid(address, &place, &why);
                None
            }
        }
    }
}

const MUST_ENCRYPT: &str = "the connection is encrypted, and RDMA encrypts nothing: say `rdma_trusted = true` if its \
    network is as good";

impl Offer {
    /// For the hello.
    pub(crate) fn endpoint(&self) -> Bytes {
        Bytes::copy_from_slice(&self.end.endpoint())
    }

    /// After the welcome: the connection as it goes on, and whether by RDMA.
    pub(crate) async fn settle(
        self,
        ends: Ends,
        welcome: &Welcome,
        pulse: &Arc<Pulse>,
    ) -> Result<Ends, LinkError> {
        let Self { mut end, address, rdma } = self;
        let place = end.place.clone();
        if welcome.rdma.is_empty() {
            let old = "the server's release knows no RDMA";
            let why = if welcome.no_rdma.is_empty() { old } else { &welcome.no_rdma };
            rdma.ways.avoid(&address, &place);
            rdma.fell_back(&address, why, false);
            return Ok(ends);
        }
        let (mut sender, receiver) = tcp_ends(ends)?;
        let tried = match end.connect(&welcome.rdma).map_err(reason) {
            Ok(()) => first_frames(end, &welcome.rdma, pulse).await,
            Err(why) => Err(why),
        };
        let head = encode_message(&Decision { rdma: tried.is_ok() });
        sender.send(&mut [Frame::new(Header::new(Kind::Decision, 0, 0), head, Vec::new())]).await?;
        match tried {
            Ok(mut ends) => {
                ends.0.may_share(welcome.shared_slabs);
                ends.1.open(Limits::AUTHENTICATED, 0);
                Ok(over(ends, (sender, receiver)))
            }
            Err(why) => {
                rdma.avoid(&address, &place, &why);
                Ok((transport::Sender::Tcp(sender), transport::Receiver::Tcp(receiver)))
            }
        }
    }
}

/// Sends a frame by the pair and waits for one.
async fn first_frames(end: End, theirs: &[u8], pulse: &Arc<Pulse>) -> Result<PairEnds, String> {
    let (mut sender, mut receiver) =
        pair_ends(end, theirs, pulse).map_err(|why| why.to_string())?;
    let exchange = async {
        sender.send(&mut [first_frame()]).await?;
        heard(&mut receiver).await
    };
    let patience = pulse.tuning.first_frame_max;
    match timeout(patience, exchange).await {
        Ok(Ok(())) => Ok((sender, receiver)),
        Ok(Err(why)) => Err(format!("the first frame failed: {why}")),
        Err(_) => Err(format!("the first frame did not come through within {patience:?}")),
    }
}

/// A server's answer to one client.
pub(crate) struct Answering<'a> {
    rdma: Option<&'a Arc<Rdma>>,
    encrypted: bool,
    pub(super) made: Mutex<Option<Made>>,
}

/// A server's end of a pair, and what the client said of its own.
pub(super) struct Made {
    pub(super) end: End,
    theirs: Bytes,
}

impl<'a> Answering<'a> {
    /// `rdma`: `None` if no client of this connection gets it.
    pub(crate) fn new(rdma: Option<&'a Arc<Rdma>>, encrypted: bool) -> Self {
        Self { rdma, encrypted, made: Mutex::new(None) }
    }

    /// To a client that proved who it is: our endpoint, or why there is none.
    pub(crate) async fn answer(
        &self,
        theirs: &Bytes,
        lane: Lane,
        workload: Workload,
    ) -> Result<Bytes, String> {
        let Some(rdma) = self.rdma else {
            return Err("the server has no RDMA device, or its `transport` is \"tcp\"".into());
        };
        if !rdma.may_carry(self.encrypted) {
            return Err(format!("at the server: {MUST_ENCRYPT}"));
        }
        let made = {
            let (rdma, theirs) = (rdma.clone(), theirs.clone());
            move || {
                let endpoint = Endpoint::decode(&theirs)?;
                let class = rdma.config.classes.of(lane, workload);
                let mut end = rdma.end(&rdma.ways.back(&endpoint)?, class, Access::Local)?;
                end.connect(&theirs)?;
                Ok(end)
            }
        };
        let end = blocking(made).await.map_err(|why| {
            rdma.ways.look_again();
            format!("at the server: {why}")
        })?;
        let ours = Bytes::copy_from_slice(&end.endpoint());
        *self.made.lock() = Some(Made { end, theirs: theirs.clone() });
        Ok(ours)
    }

    /// After the welcome: the connection as it goes on.
    pub(crate) async fn settle(
        self,
        ends: Ends,
        limits: Limits,
        slabs: u32,
        pulse: &Arc<Pulse>,
    ) -> Result<Ends, LinkError> {
        let Some(Made { end, theirs }) = self.made.into_inner() else { return Ok(ends) };
        let (tcp_sender, mut tcp_receiver) = tcp_ends(ends)?;
        let (mut sender, mut receiver) = pair_ends(end, &theirs, pulse)?;
        let answer = async {
            let exchanged = async {
                heard(&mut receiver).await?;
                sender.send(&mut [first_frame()]).await
            };
            if let Err(why) = exchanged.await {
                tracing::debug!(%why, "no first frame from a client by RDMA");
            }
            std::future::pending().await
        };
        let decision = tokio::select! {
            // Of all that there is to know the client's decision tells.
            decision = decided(&mut tcp_receiver) => decision?,
            never = answer => never,
        };
        if !decision.rdma {
            return Ok((
                transport::Sender::Tcp(tcp_sender),
                transport::Receiver::Tcp(tcp_receiver),
            ));
        }
        receiver.open(limits, slabs);
        Ok(over((sender, receiver), (tcp_sender, tcp_receiver)))
    }
}

/// Opening a device and registering memory take system calls of milliseconds.
async fn blocking<T: Send + 'static>(
    make: impl FnOnce() -> Result<T, RdmaError> + Send + 'static,
) -> Result<T, String> {
    let made = tokio::task::spawn_blocking(make).await.map_err(|error| error.to_string())?;
    made.map_err(reason)
}

fn tcp_ends(ends: Ends) -> Result<(tcp::Sender, tcp::Receiver), LinkError> {
    match ends {
        (transport::Sender::Tcp(sender), transport::Receiver::Tcp(receiver)) => {
            Ok((sender, receiver))
        }
        _ => Err(FrameError::Unexpected(Kind::Decision).into()),
    }
}

/// Of an end that is connected to what the peer said.
pub(super) fn pair_ends(
    end: End,
    theirs: &[u8],
    pulse: &Arc<Pulse>,
) -> Result<PairEnds, LinkError> {
    let longest = Endpoint::decode(theirs).map_err(|error| std::io::Error::other(reason(error)))?;
    let (outgoing, incoming) = halves(end, longest.message_bytes(), pulse)?;
    Ok((onesided::Sender::new(outgoing, pulse), onesided::Receiver::new(incoming, pulse)))
}

/// By RDMA, with the TCP connection beneath.
fn over(
    (mut sender, mut receiver): PairEnds,
    (tcp_sender, tcp_receiver): (tcp::Sender, tcp::Receiver),
) -> Ends {
    sender.half().keep(tcp_sender);
    receiver.half().keep(tcp_receiver);
    (transport::Sender::Rdma(sender), transport::Receiver::Rdma(Box::new(receiver)))
}

/// Longer than any packet: a network that takes small ones alone is found out as well.
fn first_frame() -> Frame {
    let head = vec![0; HEADER_BYTES + HANDSHAKE_BYTES_MAX];
    Frame::new(Header::new(Kind::Alive, 0, 0), head, Vec::new())
}

async fn heard(receiver: &mut onesided::Receiver<super::Incoming>) -> Result<(), LinkError> {
    match receiver.head().await?.header.kind {
        Kind::Alive => Ok(()),
        other => Err(FrameError::Unexpected(other).into()),
    }
}

pub(super) async fn decided(receiver: &mut tcp::Receiver) -> Result<Decision, LinkError> {
    let head = receiver.head().await?;
    match head.header.kind {
        Kind::Decision if head.header.bulk_bytes == 0 => {
            Decision::decode(head.message).map_err(|_| FrameError::Truncated.into())
        }
        other => Err(FrameError::Unexpected(other).into()),
    }
}
