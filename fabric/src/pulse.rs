//! Signs of life of one connection: when the peer was last heard, when it last took bytes of ours.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    clock,
    counters::{Counters, Transport, TransportCounters},
    limits, pace,
    transport::LinkError,
};

/// How a connection behaves over time; the defaults are in [`crate::limits`].
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Each side says that it lives when it sent nothing else for so long.
    pub keepalive: Duration,
    /// A peer that was silent this long is gone.
    pub silence_max: Duration,
    /// A peer that takes none of our bytes this long is dropped.
    pub stall_max: Duration,
    /// Connect and handshake together.
    pub connect_timeout: Duration,
    /// A network that drops RDMA packets is found out within so long.
    pub first_frame_max: Duration,
    /// How long a connection that came about by a far address stays so before the near one is tried again.
    pub far_pause: Duration,
    /// With peers on the same host bulk bytes go through shared memory.
    pub shared_memory: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            keepalive: limits::KEEPALIVE,
            silence_max: limits::SILENCE_MAX,
            stall_max: limits::STALL_MAX,
            connect_timeout: limits::CONNECT_TIMEOUT,
            first_frame_max: limits::RDMA_FIRST_FRAME_MAX,
            far_pause: limits::FAR_PAUSE,
            shared_memory: true,
        }
    }
}

/// Updated by both halves of a transport at each system call, read by the connection's writer.
#[derive(Debug)]
pub(crate) struct Pulse {
    born: Instant,
    heard_ms: AtomicU64,
    sent_ms: AtomicU64,
    /// Above 0 while we do not read on purpose, so that silence says nothing.
    paused: AtomicU32,
    pub(crate) tuning: Tuning,
    counters: Arc<Counters>,
    /// Known once the connection is open.
    transport: OnceLock<Transport>,
}

impl Pulse {
    pub(crate) fn new(tuning: Tuning, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            born: clock::now(),
            heard_ms: AtomicU64::new(0),
            sent_ms: AtomicU64::new(0),
            paused: AtomicU32::new(0),
            tuning,
            counters,
            transport: OnceLock::new(),
        })
    }

    pub(crate) fn heard(&self, bytes: usize) {
        self.heard_ms.store(self.now_ms(), Relaxed);
        self.counters.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_ms.store(self.now_ms(), Relaxed);
        self.counters.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts the connection as open.
    pub(crate) fn opened(&self, transport: Transport) {
        self.counters.connections.fetch_add(1, Relaxed);
        let transport = self.transport.get_or_init(|| transport);
        self.counters.transport(*transport).connections.fetch_add(1, Relaxed);
    }

    /// Counts a call.
    pub(crate) fn called(&self) {
        if let Some(carrier) = self.carrier() {
            carrier.calls.fetch_add(1, Relaxed);
        }
    }

    /// Counts bytes of a request or reply that came.
    pub(crate) fn brought(&self, bytes: usize) {
        if let Some(carrier) = self.carrier() {
            carrier.bytes_in.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Counts bytes of a request or reply that leaves.
    pub(crate) fn took(&self, bytes: usize) {
        if let Some(carrier) = self.carrier() {
            carrier.bytes_out.fetch_add(bytes as u64, Relaxed);
        }
    }

    fn carrier(&self) -> Option<&TransportCounters> {
        self.transport.get().map(|transport| self.counters.transport(*transport))
    }

    /// And as closed, once.
    pub(crate) fn closed(&self, failed: bool) {
        self.counters.connections.fetch_sub(1, Relaxed);
        if let Some(carrier) = self.carrier() {
            carrier.connections.fetch_sub(1, Relaxed);
        }
        self.counters.connection_errors.fetch_add(u64::from(failed), Relaxed);
    }

    /// Until the guard is dropped nothing is expected from the peer.
    pub(crate) fn pause(&self) -> Paused<'_> {
        self.paused.fetch_add(1, Relaxed);
        Paused(self)
    }

    /// Whether the peer still lives; `sending` if bytes of ours wait for it.
    pub(crate) fn check(&self, sending: bool) -> Result<(), LinkError> {
        let now = self.now_ms();
        let silent = now.saturating_sub(self.heard_ms.load(Relaxed));
        if self.paused.load(Relaxed) == 0 && silent > millis(self.tuning.silence_max) {
            return Err(LinkError::Silent(silent / 1000));
        }
        let stalled = now.saturating_sub(self.sent_ms.load(Relaxed));
        if sending && stalled > millis(self.tuning.stall_max) {
            return Err(LinkError::Stalled(stalled / 1000));
        }
        Ok(())
    }

    /// Whether nothing was sent for the keepalive interval.
    pub(crate) fn is_idle(&self) -> bool {
        let idle = self.now_ms().saturating_sub(self.sent_ms.load(Relaxed));
        idle >= millis(self.tuning.keepalive) * 3 / 4
    }

    /// The first time to say that we live.
    pub(crate) fn first_tick(&self) -> Instant {
        pace::after(self.born.into(), self.tuning.keepalive).into_std()
    }

    fn now_ms(&self) -> u64 {
        millis(clock::now().saturating_duration_since(self.born))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) struct Paused<'a>(&'a Pulse);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.heard(0);
        self.0.paused.fetch_sub(1, Relaxed);
    }
}
