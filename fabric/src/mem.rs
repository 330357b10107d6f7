//! Frames inside one process, for tests and simulations: the same calls without sockets.
//!
//! A server that binds `mem:NAME` is found by clients that connect to `mem:NAME`. Bulk bytes are
//! copied once, from the sender's buffer into the receiver's, as a network would.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{
    buf::SharedBuf,
    frame::{FrameError, HEADER_BYTES, Header, Limits},
    limits::{HANDSHAKES_MAX, MEM_FRAMES_MAX},
    pulse::Pulse,
    transport::{self, Frame, Head, LinkError},
};

/// Addresses that begin so are in this process.
pub const SCHEME: &str = "mem:";

type Packet = (Bytes, Vec<SharedBuf>);
type Pipe = (mpsc::Sender<Packet>, mpsc::Receiver<Packet>);

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
        let sender = Sender { packets: self.0.0, pulse: pulse.clone() };
        let receiver = Receiver {
            packets: self.0.1,
            bulk: VecDeque::new(),
            limits: Limits::HANDSHAKE,
            pulse: pulse.clone(),
        };
        (transport::Sender::Mem(sender), transport::Receiver::Mem(receiver))
    }
}

/// Connects to the server that listens as `name`.
pub(crate) async fn connect(name: &str) -> io::Result<Connecting> {
    let listener = LISTENERS.lock().get(name).cloned();
    let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
    let (to_server, from_client) = mpsc::channel(MEM_FRAMES_MAX);
    let (to_client, from_server) = mpsc::channel(MEM_FRAMES_MAX);
    let sent = listener.send((to_client, from_client)).await;
    sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
    Ok(Connecting((to_server, from_server)))
}

#[derive(Debug)]
pub(crate) struct Sender {
    packets: mpsc::Sender<Packet>,
    pulse: Arc<Pulse>,
}

impl Sender {
    pub(crate) async fn send(&mut self, frames: &[Frame]) -> Result<(), LinkError> {
        for frame in frames {
            let bulk = frame.bulk.iter().filter(|part| !part.is_empty()).cloned().collect();
            let packet = (frame.head.clone(), bulk);
            self.packets.send(packet).await.map_err(|_| LinkError::Closed)?;
            self.pulse.sent(frame.head.len() + frame.bulk.iter().map(|b| b.len()).sum::<usize>());
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Receiver {
    packets: mpsc::Receiver<Packet>,
    /// What is left of the current frame's bulk bytes.
    bulk: VecDeque<SharedBuf>,
    pub(crate) limits: Limits,
    pulse: Arc<Pulse>,
}

impl Receiver {
    pub(crate) async fn head(&mut self) -> Result<Head, LinkError> {
        assert!(self.bulk.is_empty(), "the last frame's bulk bytes were not taken");
        let (mut message, bulk) = self.packets.recv().await.ok_or(LinkError::Closed)?;
        let bulk_bytes = bulk.iter().map(|part| part.len()).sum::<usize>();
        self.pulse.heard(message.len() + bulk_bytes);
        self.bulk = bulk.into();
        if message.len() < HEADER_BYTES {
            return Err(FrameError::Truncated.into());
        }
        let mut header = [0; HEADER_BYTES];
        message.copy_to_slice(&mut header);
        let header = Header::decode(&header, self.limits)?;
        if message.len() != header.message_bytes as usize
            || bulk_bytes != header.bulk_bytes as usize
        {
            return Err(FrameError::Truncated.into());
        }
        header.check_message(&message)?;
        Ok(Head { header, message })
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
