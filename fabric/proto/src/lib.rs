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

/// Version of the wire protocol. History: 1 = first.
pub const PROTOCOL_VERSION: u32 = 1;

pub use ids::*;
pub use routing::Routing;
pub use status::{Code, Retry, Status};
