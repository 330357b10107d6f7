//! The kernel's FUSE interface: mounting, requests and answers, notifications.
//!
//! Owns the connection to the kernel and the threads that serve it. It knows nothing of files: a
//! [`Filesystem`] gets each [`Request`], decoded, and gives back a [`Reply`], in whatever order.
//!
//! The story of a request: a thread of [`Executors`] takes it from `/dev/fuse` or from a ring (`device`,
//! `ring`: the same requests on two ways), decodes it (`request`) and hands it to the file system, which
//! answers at once or from a task on the same thread. The answer goes back on the way that the request
//! came. The bytes of a write lie in a page-aligned buffer that the write keeps as long as it likes; the
//! bytes of a read go to the kernel from where they lie (`/dev/fuse`), or were read to where the kernel
//! takes them ([`Answer::room`]).
//!
//! Signals reach a request as [`Interrupted`]. The kernel waits for an answer even then.

mod abi;
mod answer;
mod cpu;
mod device;
mod executor;
mod init;
mod interrupts;
mod limits;
mod listing;
mod memory;
mod mount;
mod notify;
mod reply;
mod request;
mod ring;
mod session;

pub use abi::{ROOT, init as flags, open, write};
pub use answer::Answer;
pub use executor::Executors;
pub use init::{Agreed, Wanted};
pub use interrupts::Interrupted;
pub use listing::Listing;
pub use memory::WriteMemory;
pub use mount::{MountOptions, Unmounter};
pub use notify::Notifier;
pub use reply::{Attr, Entry, Errno, Reply, Space};
pub use request::{
    Asker, CopyRange, Lock, Malformed, Operation, Payload, Read, Request, SetAttr, SetTime, Write,
};
pub use session::{Filesystem, IoUring, Mounted, Options, Way, mount};
