//! RDMA verbs as owned types: devices and how to reach a peer from them, registered memory, reliable connections.
//!
//! Owns every call of libibverbs and all that such a call makes; nothing here knows of ff2's frames or services. The
//! transport of `ff2-fabric` calls it.
//!
//! The library is loaded when it is first wanted ([`available`]): a program that was built with this crate runs on a
//! machine without libibverbs or without a card, and is told in words why there is no RDMA. The layouts of the
//! structures are those of `rdma-sys`, so the headers are needed to build.
//!
//! The story of some bytes: [`Place`] says which device, port and address lead to a peer ([`place::toward`] asks the
//! kernel's routes, never the names of interfaces). A [`Pool`] is memory that is registered once with the [`Domain`]
//! of each device; it lends [`Buffer`]s. [`Shared`] is memory of somebody else that is registered, whose owner may lend
//! parts of it ([`Lendable`]). A [`Pair`] is one end of a connection. It takes the buffers of a transfer
//! with the transfer, and gives them back when the device is done with them or is no more; so no buffer is freed or
//! read that a device may still write. Messages are received into buffers posted ahead, and each message tells
//! in its immediate data for how many more the sender has room, so that no message ever finds none.
//!
//! **Invariant:** what a peer sends is bounded by what was granted to it, and a peer that breaks that is cut off.

mod completions;
mod device;
mod error;
mod library;
mod local;
mod memory;
mod pair;
pub mod place;
mod pool;
mod shared;

pub use completions::Failure;
pub use device::{Device, DeviceEvent, Port};
pub use error::Error;
pub use local::{Lendable, Lent, Local};
pub use memory::{Access, Domain};
pub use pair::{
    Class, Direction, Endpoint, Event, Message, Pair, Refused, Settings, Transfer, Why, WorkId,
};
pub use place::{Gid, GidKind, Place};
pub use pool::{Buffer, Exposed, Pool, Remote};
pub use shared::{Memory, Shared};

/// The devices by name, or why RDMA cannot be used here.
pub fn available() -> Result<Vec<String>, Error> {
    let names = device::names()?;
    if names.is_empty() { Err(Error::NoDevice) } else { Ok(names) }
}
