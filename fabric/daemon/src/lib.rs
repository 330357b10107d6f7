//! What every ff2 process has around its work: typed configuration, logs, metrics, an admin socket, a
//! clean shutdown, one process per folder, and fault points.
//!
//! [`run`] is the `main` of each daemon: it takes a checked configuration, locks the data folder,
//! starts the admin socket, and hands a [`Runtime`] to the daemon's own async function. Nothing here
//! knows what a daemon does, and no daemon opens a socket for people on its own.

pub mod admin;
pub mod bounded;
pub mod config;
mod encryption;
mod expiry;
pub mod fault;
pub mod grpc;
mod inflight;
pub mod limits;
mod log;
mod metrics;
mod network;
mod operations;
mod pidfile;
mod process;
mod run;
mod shutdown;
pub mod torn_log;

pub use admin::{Admin, admin_get, admin_text};
pub use encryption::encryption;
pub use expiry::Expiry;
pub use inflight::{InFlight, InFlightGuard};
pub use log::{LOG_ENV, init_tracing};
pub use metrics::{Latency, LatencyBuckets, Metrics, OpLabel};
pub use network::{Traffic, rdma};
pub use operations::{Operation, Operations};
pub use pidfile::{PidFile, PidFileError};
pub use process::ProcessId;
pub use run::{Runtime, run};
pub use shutdown::{drain, stop_signals};
