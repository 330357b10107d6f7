//! The user ring: reads and writes of files on an ff2 mount without a system call for each and without
//! the kernel's page cache.
//!
//! A program opens files as ever, with `open(2)` on the mount. Then it connects a [`Ring`] to the
//! mount's process, registers the descriptors and some memory ([`Region`]), pushes operations in batches
//! and reaps their completions. A descriptor is the right: what it was opened for the ring may do, whoever
//! the program runs as, and nothing else. Bytes go between the servers and the region with one copy.
//!
//! ```no_run
//! use ff2_ring::{Op, Options, Ring};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = std::fs::File::open("/mnt/ff2/model.safetensors")?;
//! let mut ring = Ring::connect("/mnt/ff2", &Options::default())?;
//! let region = ring.region(64 << 20)?;
//! let weights = ring.file(&file)?;
//! for piece in 0..16 {
//!     let at = piece << 22;
//!     let op = Op::read(weights, at as u64, &region, at..at + (4 << 20))?;
//!     ring.push(op.user_data(piece as u64))?;
//! }
//! ring.submit();
//! for completion in ring.reap(16, None)? {
//!     println!("piece {}: {} bytes", completion.user_data(), completion.result()?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What the mount promises holds: reads see what other mounts closed or synced, and what was written on this mount by
//! whichever way. A write by the ring is seen by `read(2)` on the same mount once its completion was
//! posted, and on others after an fsync or a close. Not seen by the ring is what a program put into a
//! mapping and did not `msync` yet.
//!
//! The crate is also a C library (`include/ff2_ring.h`) and serves the mount's process: [`layout`] and
//! [`queue`] are both sides of the shared memory, [`control`] the messages beside it.

pub mod capi;
pub mod control;
mod error;
pub mod layout;
pub mod limits;
pub mod mapping;
mod op;
pub mod queue;
mod region;
mod ring;

pub use error::{Error, Result};
pub use op::{Class, Completion, Op, RingFile};
pub use region::Region;
pub use ring::{Options, Ring};
