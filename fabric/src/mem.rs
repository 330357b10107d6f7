//! Frames inside one process, for tests and simulations: the same calls without sockets.
//!
//! A server that binds `mem:NAME` is found by clients that connect to `mem:NAME`, or to `mem:NAME#FROM`
//! if it matters who connects. Bulk bytes are copied once, from the sender's buffer into the
//! receiver's, as a network would. A simulation registers a [`Weather`], which delays frames, loses
//! them and breaks connections; without one every frame arrives at once.

mod weather;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::sleep};
use weather::Road;
pub use weather::{Fate, Line, Way, Weather, WeatherGuard, set_weather};

use crate::{
    buf::SharedBuf,
    frame::{FrameError, HEADER_BYTES, Header, Limits, seal},
    limits::{HANDSHAKES_MAX, MEM_FRAMES_MAX},
    pulse::Pulse,
    transport::{self, Frame, Head, LinkError},
};

/// Addresses that begin so are in this process.
pub const SCHEME: &str = "mem:";

/// One frame on its way.
#[derive(Debug)]
struct Packet {
    head: Bytes,
    bulk: Vec<SharedBuf>,
    passage: weather::Passage,
}

/// One side's ends of a connection.
#[derive(Debug)]
struct Pipe {
    out: mpsc::Sender<Packet>,
    incoming: mpsc::Receiver<Packet>,
    /// What its frames go through, and which way they go.
    line: Option<(Line, Arc<dyn Weather>, Way)>,
}

static LISTENERS: Mutex<BTreeMap<String, mpsc::Sender<Pipe>>> = Mutex::new(BTreeMap::new());

/// Takes connections to one name until it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    name: String,
    incoming: mpsc::Receiver<Pipe>,
}

impl Listener {
    pub(crate) fn bind(name: &str) -> io::Result<Self> {
        let mut listeners = LISTENERS.lock();
        if listeners.contains_key(name) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (sender, incoming) = mpsc::channel(HANDSHAKES_MAX);
        listeners.insert(name.into(), sender);
        Ok(Self { name: name.into(), incoming })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn accept(&mut self) -> io::Result<Connecting> {
        let pipe = self.incoming.recv().await;
        pipe.map(Connecting).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        LISTENERS.lock().remove(&self.name);
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Connecting(Pipe);

impl Connecting {
    pub(crate) fn split(self, pulse: &Arc<Pulse>) -> (transport::Sender, transport::Receiver) {
        let Pipe { out, incoming, line } = self.0;
        let broken = line.as_ref().map(|(line, ..)| line.clone());
        let sender = Sender { packets: out, road: line.map(Road::new), pulse: pulse.clone() };
        let receiver = Receiver {
            packets: incoming,
            line: broken,
            torn: false,
            bulk: VecDeque::new(),
            limits: Limits::HANDSHAKE,
            pulse: pulse.clone(),
        };
        (transport::Sender::Mem(sender), transport::Receiver::Mem(receiver))
    }
}

/// Connects to the server that listens as the name before the `#`.
pub(crate) async fn connect(address: &str) -> io::Result<Connecting> {
    let (name, from) = address.split_once('#').unwrap_or((address, ""));
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let line = weather::over(name).map(|weather| (Line::new(name, from), weather));
    if let Some((line, weather)) = &line {
        match weather.connecting(line) {
            Fate::Arrives(delay) => sleep(delay).await,
            Fate::Held => std::future::pending().await,
            Fate::Cut | Fate::Torn => return Err(refused()),
        }
    }
    let listener = LISTENERS.lock().get(name).cloned().ok_or_else(refused)?;
    let (to_server, from_client) = mpsc::channel(MEM_FRAMES_MAX);
    let (to_client, from_server) = mpsc::channel(MEM_FRAMES_MAX);
    let side = |out, incoming, way| {
        let line = line.clone().map(|(line, weather)| (line, weather, way));
        Pipe { out, incoming, line }
    };
    let sent = listener.send(side(to_client, from_client, Way::ToClient)).await;
    sent.map_err(|_| refused())?;
    Ok(Connecting(side(to_server, from_server, Way::ToServer)))
}

#[derive(Debug)]
pub(crate) struct Sender {
    packets: mpsc::Sender<Packet>,
    road: Option<Road>,
    pulse: Arc<Pulse>,
}

impl Sender {
    pub(crate) async fn send(&mut self, frames: &mut [Frame]) -> Result<(), LinkError> {
        for frame in frames {
            let bulk = frame.bulk.iter().filter(|part| !part.is_empty()).cloned().collect();
            let bulk_bytes = frame.bulk_bytes();
            seal(&mut frame.head, frame.header, &[], bulk_bytes);
            let head = Bytes::from(std::mem::take(&mut frame.head));
            let bytes = head.len() + bulk_bytes;
            match &mut self.road {
                None => {
                    let packet = Packet { head, bulk, passage: weather::Passage::FREE };
                    self.packets.send(packet).await.map_err(|_| LinkError::Closed)?;
                }
                Some(road) => {
                    let passage = road.passage(bytes)?;
                    let sending = self.packets.send(Packet { head, bulk, passage });
                    tokio::select! {
                        biased;
                        () = road.line.broken() => return Err(reset()),
                        sent = sending => sent.map_err(|_| LinkError::Closed)?,
                    }
                }
            }
            self.pulse.sent(bytes);
        }
        Ok(())
    }
}

impl Drop for Sender {
    /// The end of a connection travels as its frames do, and may be held as they may.
    fn drop(&mut self) {
        let Some(passage) = self.road.as_mut().and_then(|road| road.passage(0).ok()) else {
            return;
        };
        // Into a queue that is full it does not fit; the receiver then sees the end behind the queue.
        let _ = self.packets.try_send(Packet { head: Bytes::new(), bulk: Vec::new(), passage });
    }
}

/// What either end of a broken connection is told.
fn reset() -> LinkError {
    io::Error::from(io::ErrorKind::ConnectionReset).into()
}

#[derive(Debug)]
pub(crate) struct Receiver {
    packets: mpsc::Receiver<Packet>,
    line: Option<Line>,
    /// What is left of the current frame's bulk bytes.
    bulk: VecDeque<SharedBuf>,
    /// They will not come: the connection broke within them.
    torn: bool,
    pub(crate) limits: Limits,
    pulse: Arc<Pulse>,
}

impl Receiver {
    pub(crate) async fn head(&mut self) -> Result<Head, LinkError> {
        assert!(self.bulk.is_empty(), "the last frame's bulk bytes were not taken");
        let (mut message, bulk) = self.packet().await?;
        let bulk_bytes = bulk.iter().map(|part| part.len()).sum::<usize>();
        self.pulse.heard(message.len() + bulk_bytes);
        self.bulk = bulk.into();
        if message.len() < HEADER_BYTES {
            return Err(FrameError::Truncated.into());
        }
        let mut header = [0; HEADER_BYTES];
        message.copy_to_slice(&mut header);
        let header = Header::decode(&header, self.limits)?;
        if bulk_bytes != header.bulk_bytes as usize {
            return Err(FrameError::Truncated.into());
        }
        let (message, _) = header.open(message)?;
        Ok(Head::new(header, message))
    }

    /// The next packet, when its way is over. Not cancel-safe.
    async fn packet(&mut self) -> Result<(Bytes, Vec<SharedBuf>), LinkError> {
        let next = async {
            let packet = self.packets.recv().await.ok_or(LinkError::Closed)?;
            packet.passage.over().await;
            Ok::<_, LinkError>(packet)
        };
        let packet = match &self.line {
            None => next.await?,
            Some(line) => tokio::select! {
                biased;
                () = line.broken() => return Err(reset()),
                packet = next => packet?,
            },
        };
        if packet.head.is_empty() {
            return Err(LinkError::Closed);
        }
        self.torn = packet.passage.torn;
        Ok((packet.head, packet.bulk))
    }

    pub(crate) fn bulk(&mut self, into: &mut [u8]) -> Result<(), LinkError> {
        let mut at = 0;
        self.take(into.len(), |part| {
            into[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        })
    }

    pub(crate) fn skip(&mut self, count: usize) -> Result<(), LinkError> {
        self.take(count, |_| ())
    }

    fn take(&mut self, count: usize, mut each: impl FnMut(&[u8])) -> Result<(), LinkError> {
        if let Some(line) = self.line.as_ref().filter(|_| self.torn && count > 0) {
            line.cut();
            return Err(reset());
        }
        let mut left = count;
        while left > 0 {
            let Some(part) = self.bulk.pop_front() else {
                return Err(FrameError::Truncated.into());
            };
            let taken = left.min(part.len());
            each(&part[..taken]);
            left -= taken;
            if taken < part.len() {
                self.bulk.push_front(part.slice(taken..));
            }
        }
        Ok(())
    }
}
