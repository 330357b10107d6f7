//! What a client needs to know to begin.

use std::{sync::Arc, time::Duration};

use ff2_fabric::{Rdma, UserToken, tls::ClientTls};

use crate::limits;

/// How to connect, and as whom.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Data-plane addresses of metads, `host:port`; any one that lives will do.
    pub metads: Vec<String>,
    /// Proves who this is (`ff2ctl user token`).
    pub token: UserToken,
    /// Checked by both ends of each connection.
    pub cluster_id: String,
    pub volume: String,
    /// Shown in the list of sessions: host, process, mount point.
    pub description: String,
    /// How long attributes may be shown without asking again; 0: never.
    pub cache: Duration,
    /// How long an operation waits for failed servers before it fails itself.
    pub patience: Duration,
    /// Bytes of registered buffers: bounds what reads and writes in flight hold.
    pub buffer_bytes: u64,
    /// New files begin in the namespace, and move to chunks when they outgrow it.
    pub inline: bool,
    /// Of a coherent client: changes of names and attributes that concern nobody else return before the
    /// namespace has them, and are durable after `fsync`.
    pub behind: bool,
    /// Reads change access times, as relatime has it.
    pub atime: bool,
    /// What is encrypted over the network; None: nothing.
    pub tls: Option<ClientTls>,
    /// Reaches servers by RDMA where both sides can; None: never.
    pub rdma: Option<Arc<Rdma>>,
    /// The zone of the network that this process is in: servers with an address there are reached by that.
    /// Empty: not told.
    pub zone: String,
}

impl ClientOptions {
    pub fn new(metads: Vec<String>, token: UserToken, cluster_id: impl Into<String>) -> Self {
        Self {
            metads,
            token,
            cluster_id: cluster_id.into(),
            volume: "default".into(),
            description: format!("process {}", std::process::id()),
            cache: limits::CACHE,
            patience: limits::PATIENCE,
            buffer_bytes: limits::BUFFER_BYTES,
            inline: true,
            behind: true,
            atime: true,
            tls: None,
            rdma: None,
            zone: String::new(),
        }
    }

    #[must_use]
    pub fn volume(mut self, name: impl Into<String>) -> Self {
        self.volume = name.into();
        self
    }

    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    #[must_use]
    pub fn inline(mut self, inline: bool) -> Self {
        self.inline = inline;
        self
    }

    #[must_use]
    pub fn behind(mut self, behind: bool) -> Self {
        self.behind = behind;
        self
    }

    #[must_use]
    pub fn atime(mut self, atime: bool) -> Self {
        self.atime = atime;
        self
    }

    #[must_use]
    pub fn encrypted(mut self, tls: Option<ClientTls>) -> Self {
        self.tls = tls;
        self
    }

    #[must_use]
    pub fn rdma(mut self, rdma: Option<Arc<Rdma>>) -> Self {
        self.rdma = rdma;
        self
    }

    #[must_use]
    pub fn zone(mut self, name: impl Into<String>) -> Self {
        self.zone = name.into();
        self
    }

    #[must_use]
    pub fn cache(mut self, age: Duration) -> Self {
        self.cache = age;
        self
    }
}
