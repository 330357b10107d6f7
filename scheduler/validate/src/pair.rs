//! Two nodes that send each other bytes over TCP.
//!
//! One runs a [`Server`] for a while, the other measures against it as a part of its validation. Each connection
//! begins with a proof on either side that it knows the token, which is never sent (`admission.rs`); then the client
//! asks, one request after another:
//!
//! ```text
//! P number(8)                 ->  number(8)                     a round trip
//! U, then chunks to the end   ->  bytes(8) wrong chunks(8)      client to server
//! D bytes(8) milliseconds(8)  ->  chunks to the end             server to client
//! E                                                             the pair is done, the server may end
//! ```
//!
//! A chunk is a byte 1 and [`PAIR_CHUNK`](crate::limits) known bytes, which the receiver compares; the end is a
//! byte 0. Numbers are little-endian. All of it is bounded in bytes and time on both sides.

mod admission;
mod client;
mod server;
mod wire;

pub(crate) use client::{Found, measure};
pub use server::{Served, Server};
