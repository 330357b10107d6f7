//! What every ff2 process agrees on: ids, wire messages, status codes, routing tables and layout.
//!
//! Owns the `.proto` files (`proto/ff2/v1`), the one table from status code to errno and retry
//! class ([`status`]), and the pure functions that client and server must compute alike
//! ([`layout`]). It never does I/O and knows no clock; every other crate depends on it.
//!
//! The story of the data: a message arrives as bytes, is decoded into a type of [`pb`], and is
//! turned into domain types (ids, [`Routing`]) at the edge of the crate that uses it.
#![forbid(unsafe_code)]

pub mod exports;
pub mod extras;
pub mod ids;
pub mod layout;
pub mod limits;
pub mod marks;
pub mod relatime;
pub mod routing;
pub mod status;

/// The messages, as prost generates them from `proto/ff2/v1`.
#[allow(
    missing_debug_implementations,
    clippy::doc_markdown,
    clippy::large_enum_variant,
    reason = "generated code"
)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/ff2.v1.rs"));
}

/// The encoded `FileDescriptorSet` of the messages, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ff2.bin"));

/// Versions of the wire protocol that this release speaks, the lowest and the highest. History: 1 = first; 2 = a hello
/// tells a range of versions, and the welcome which one is used.
pub const PROTOCOL_VERSIONS: [u32; 2] = [1, 2];

/// The highest feature level that this release knows: what it may log, store and send once all of a cluster do
/// (docs/design/0010). History: 1 = before there were levels; 2 = the trash;
/// 3 = snapshots; updates of chunks say which of their session were answered; mends of the namespace;
/// addresses of a node in several zones; access times.
pub const LEVEL: u32 = 3;

/// A level as it is stored and sent: nothing was, before there were levels.
pub fn level_of(told: u32) -> u32 {
    told.max(1)
}

pub use ids::*;
pub use routing::Routing;
pub use status::{Code, Retry, Status};
