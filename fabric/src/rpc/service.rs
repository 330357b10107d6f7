//! What the generated dispatchers are made of.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use ff2_proto::{Code, Status};
use prost::Message;

use super::{Answer, Context};
use crate::{
    buf::{Buf, SharedBuf},
    frame,
};

/// A service that a [`crate::Router`] can serve; implemented by the generated `XServer`s.
pub trait Service: Send + Sync + 'static {
    /// The upper byte of its methods' numbers.
    fn number(&self) -> u8;
    fn call(&self, request: Request) -> ReplyFuture;
}

/// One call as it came from the wire.
#[derive(Debug)]
pub struct Request {
    pub method: u16,
    pub cx: Context,
    pub message: Bytes,
    pub bulk: Buf,
}

pub type ReplyFuture = Pin<Box<dyn Future<Output = Result<Reply, Status>> + Send>>;

/// An encoded answer.
#[derive(Debug)]
pub struct Reply {
    /// The message, behind room for the frame's header.
    pub(crate) head: Vec<u8>,
    pub(crate) bulk: Vec<SharedBuf>,
}

impl<M: Message> From<Answer<M>> for Reply {
    fn from(answer: Answer<M>) -> Self {
        Self { head: frame::encode_message(&answer.message), bulk: answer.bulk }
    }
}

/// The message of a request or reply.
pub fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message)
        .map_err(|error| Status::new(Code::BadFrame, format!("the message is damaged: {error}")))
}

pub fn no_such_method(method: u16) -> Status {
    Status::new(Code::Unsupported, format!("this server has no method {method:#06x}"))
}
