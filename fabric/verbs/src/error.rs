//! What can go wrong, by what the caller can do about it.

use std::io;

use thiserror::Error;

use crate::Failure;

#[derive(Debug, Error)]
pub enum Error {
    /// TCP serves instead.
    #[error(
        "libibverbs cannot be loaded ({0}): install libibverbs1 and ibverbs-providers for RDMA"
    )]
    NoLibrary(String),
    /// TCP serves instead.
    #[error("this machine has no RDMA device (see `rdma link`)")]
    NoDevice,
    #[error("there is no RDMA device {0} here (see `rdma link`)")]
    UnknownDevice(String),
    /// Another path may serve.
    #[error("{call} failed on {device}")]
    Call { call: &'static str, device: String, source: io::Error },
    #[error("cannot read {path}")]
    Sysfs { path: String, source: io::Error },
    /// TCP serves this peer instead.
    #[error("no active RDMA port has the address {0}, by which this host reaches the peer")]
    NoPlace(std::net::IpAddr),
    #[error("cannot map {bytes} bytes for RDMA")]
    Memory { bytes: usize, source: io::Error },
    #[error(
        "{wanted} buffers are wanted and {free} are free: enlarge the pool or have fewer connections"
    )]
    NoBuffers { wanted: usize, free: usize },
    #[error("the buffer's pool is not registered with the device of this connection")]
    ForeignBuffer,
    /// The peer's words make no sense: give the connection up.
    #[error("what the peer says of its end of the connection makes no sense: {0}")]
    Endpoint(&'static str),
    #[error("{what} must be within {least}..={most}, not {given}")]
    Setting { what: &'static str, least: u32, most: u32, given: u32 },
    /// Everything posted comes back by [`crate::Pair::poll`]; then make a new connection, by another path perhaps.
    #[error("the connection is broken: {0}")]
    Broken(Failure),
}

impl Error {
    /// The last call of this thread, by errno.
    pub(crate) fn last(call: &'static str, device: &str) -> Self {
        Self::Call { call, device: device.to_owned(), source: io::Error::last_os_error() }
    }

    /// A call that returns an error number, or -1 with errno.
    pub(crate) fn returned(call: &'static str, device: &str, code: i32) -> Self {
        if code < 0 {
            return Self::last(call, device);
        }
        Self::Call { call, device: device.to_owned(), source: io::Error::from_raw_os_error(code) }
    }
}
