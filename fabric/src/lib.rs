//! The data plane: how ff2 processes call each other, and what every process knows of the cluster.
//!
//! Owns the connections ([`peers`], [`server`]), the bytes on them ([`frame`], over `transport`),
//! the buffers that bulk bytes live in ([`buf`]), who may connect ([`auth`]), the routing that a
//! process knows ([`routing`]) and its membership ([`membership`]). It never decides anything about
//! files, chunks or chains: services implement the traits of [`stubs`], clients call them.
//!
//! The story of a call: a client stub encodes its message; [`rpc::Channel`] picks a connection to
//! the peer, waits for credit and queues a frame; the connection's writer sends all queued frames in
//! one system call. The server reads the message, then the bulk bytes straight into a pool buffer,
//! and runs the handler in a task; its answer goes back the same way, and the client's reader puts
//! the reply's bulk bytes straight into the buffer that the caller gave.

pub mod admin;
pub mod auth;
pub mod buf;
pub mod chain;
mod clock;
pub mod counters;
#[cfg(test)]
mod echo;
pub mod frame;
mod handshake;
pub mod leader;
pub mod level;
pub mod limits;
pub mod mem;
pub mod membership;
mod onesided;
mod outbox;
pub mod pace;
pub mod peers;
mod pulse;
pub mod rdma;
pub mod routing;
pub mod rpc;
pub mod server;
mod shm;
mod stream;
pub mod stubs;
mod tcp;
pub mod tls;
mod transport;

pub use auth::{ClusterKey, Role, UserToken, check_rules};
pub use buf::{Buf, BufPool, SharedBuf};
pub use peers::{Identity, Owed, Peers, PeersConfig};
pub use pulse::Tuning;
pub use rdma::Rdma;
pub use routing::RoutingCache;
pub use rpc::{Answer, Call, Channel, Context, Peer};
pub use server::{Router, Server, ServerConfig};
pub use stubs::{
    Agents, AgentsClient, AgentsServer, Cluster, ClusterClient, ClusterServer, Namespace,
    NamespaceClient, NamespaceServer, Raft, RaftClient, RaftServer, Ranks, RanksClient,
    RanksServer, Storage, StorageClient, StorageServer,
};
