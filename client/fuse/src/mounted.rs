//! What all requests of a mount share.

use std::time::Duration;

use ff2_client::Client;
use ff2_daemon::Operations;
use prometheus_client::metrics::counter::Counter;
use tokio_util::task::TaskTracker;

use crate::{
    files::{Directories, Files},
    known::Known,
    who::Groups,
};

/// Bytes that went through the mount.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) read_bytes: Counter,
    pub(crate) written_bytes: Counter,
}

/// What all requests of a mount share.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) client: Client,
    /// The token may speak for every user of this host; else everything is done as its own user.
    pub(crate) for_all_users: bool,
    /// How long the kernel may trust what it is told.
    pub(crate) ttl: Duration,
    pub(crate) files: Files,
    pub(crate) directories: Directories,
    pub(crate) known: Known,
    pub(crate) groups: Groups,
    pub(crate) operations: Operations,
    pub(crate) traffic: Traffic,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) requests: TaskTracker,
}
