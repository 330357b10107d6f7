//! Counts of calls and bytes, for the daemons to show. Latencies are theirs to measure.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{rpc::Method, stubs::method};

/// One side's traffic: a server's, or a process's calls to its peers.
#[derive(Debug)]
pub struct Counters {
    /// Through sockets, or moved by this process itself.
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Connections that are open now.
    pub connections: AtomicU64,
    /// Connections that were refused or broke.
    pub connection_errors: AtomicU64,
    /// In order of [`Transport::ALL`].
    transports: [TransportCounters; Transport::ALL.len()],
    /// In order of [`Method::index`].
    methods: Box<[MethodCounters]>,
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    /// Shared memory, with a local socket.
    Shm,
    Rdma,
    /// Inside the process.
    Mem,
}

impl Transport {
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Shm, Self::Rdma, Self::Mem];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Shm => "shm",
            Self::Rdma => "rdma",
            Self::Mem => "mem",
        }
    }
}

/// The traffic of one transport, however it moves the bytes: messages with what belongs to them.
#[derive(Debug, Default)]
pub struct TransportCounters {
    /// Connections that are open now.
    pub connections: AtomicU64,
    pub calls: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

#[derive(Debug, Default)]
pub struct MethodCounters {
    pub calls: AtomicU64,
    pub errors: AtomicU64,
    pub in_progress: AtomicU64,
}

impl Counters {
    /// Of nothing yet.
    pub fn new() -> Arc<Self> {
        let methods = method::ALL.iter().map(|_| MethodCounters::default()).collect();
        Arc::new(Self {
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connection_errors: AtomicU64::new(0),
            transports: Default::default(),
            methods,
        })
    }

    pub fn transport(&self, transport: Transport) -> &TransportCounters {
        &self.transports[transport as usize]
    }

    pub fn method(&self, method: Method) -> &MethodCounters {
        &self.methods[method.index]
    }

    /// Every method with its counters.
    pub fn methods(&self) -> impl Iterator<Item = (Method, &MethodCounters)> {
        method::ALL.iter().copied().zip(&*self.methods)
    }

    pub(crate) fn begin(&self, method: Method) {
        let counters = self.method(method);
        counters.calls.fetch_add(1, Relaxed);
        counters.in_progress.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self, method: Method, failed: bool) {
        let counters = self.method(method);
        counters.in_progress.fetch_sub(1, Relaxed);
        counters.errors.fetch_add(u64::from(failed), Relaxed);
    }
}
