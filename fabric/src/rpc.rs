//! The words of a call: what a client passes and gets, what a server's method sees and answers.
//!
//! Services implement the traits of [`crate::stubs`] with these types; the generated dispatchers and
//! clients are the only code that knows how a message becomes a frame. Nothing here does I/O.

mod service;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ff2_proto::{Code, Status, pb};
pub use service::{Reply, ReplyFuture, Request, Service, decode, no_such_method};

pub use crate::peers::Channel;
use crate::{
    buf::{Buf, SharedBuf},
    clock,
};

/// One method of the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Service << 8 | place of the method in the `.proto` file.
    pub number: u16,
    /// `Service.Method`.
    pub name: &'static str,
    /// Place in [`crate::stubs::method::ALL`].
    pub index: usize,
}

/// What a server knows about a call beside its message.
#[derive(Clone, Debug)]
pub struct Context {
    pub peer: Peer,
    /// Where it comes from: 127.0.0.1 by the local socket, nowhere inside a process.
    pub from: Option<IpAddr>,
    /// When the caller stops waiting. An answer after it is thrown away.
    pub deadline: Instant,
    /// The newest routing that the caller knew.
    pub routing_version: u64,
}

impl Context {
    /// What is left until the deadline.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(clock::now())
    }

    /// For calls that only ff2's own processes make.
    pub fn require_daemon(&self) -> Result<(), Status> {
        match &self.peer {
            Peer::Daemon => Ok(()),
            Peer::User(claims) => Err(Status::new(
                Code::Forbidden,
                format!("user {} made a call that only daemons may make", claims.name),
            )),
        }
    }
}

/// Who is at the other end, proved by the handshake.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Holds the cluster key.
    Daemon,
    /// Holds a user token.
    User(Arc<pb::UserClaims>),
}

/// What a method answers: a message and bulk bytes, which travel in order without being copied.
#[derive(Clone, Debug, Default)]
pub struct Answer<M> {
    pub message: M,
    pub bulk: Vec<SharedBuf>,
}

impl<M> Answer<M> {
    pub fn with_bulk(message: M, bulk: Vec<SharedBuf>) -> Self {
        Self { message, bulk }
    }
}

impl<M> From<M> for Answer<M> {
    fn from(message: M) -> Self {
        Self { message, bulk: Vec::new() }
    }
}

/// How a client makes one call.
#[derive(Debug)]
pub struct Call {
    /// Also travels to the server, as the handler's deadline.
    pub timeout: Duration,
    /// Bulk bytes of the request, sent in order.
    pub bulk: Vec<SharedBuf>,
    /// Where the reply's bulk bytes go; must be long enough. None: a pool buffer of their length.
    pub into: Option<Buf>,
}

impl Call {
    pub fn within(timeout: Duration) -> Self {
        Self { timeout, ..Self::default() }
    }
}

impl Default for Call {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5), bulk: Vec::new(), into: None }
    }
}
