//! The FUSE mount: the kernel's requests, answered by [`ff2_client`].
//!
//! Owns the translation between the two and what only a mount needs: who asks (with supplementary
//! groups), open handles, which inodes the kernel knows, and when its page cache may stay. It keeps
//! no data and no attributes of its own; what is cached is cached by the kernel, for
//! [`ff2_daemon::config::MountConfig::cache_ms`], or by the client library.
//!
//! The story of a request: a thread of [`ff2_fuse_kernel::Executors`] takes it and starts a task on the
//! same thread; the task asks the client library, which has connections for each of them, and replies. A request
//! that waits for a failed server therefore holds no thread, and one that need not wait changes none. The
//! kernel waits for an answer even when the process behind a request is killed, so a request that takes
//! long looks whether that is so, and answers then; what only asks ends with it, what changes something
//! goes on to its end.
//! The mount point's own attributes and space are answered from memory when
//! the namespace is silent, so that the tools that bring servers back do not wait for them.
//!
//! A mount whose process was killed is taken away by a small guard process; see [`guard`].

mod attr;
mod coherence;
mod files;
mod fs;
pub mod guard;
pub mod helper;
mod known;
mod limits;
mod listing;
mod lock_owners;
mod mount;
mod mounted;
mod ops;
mod requests;
mod rings;
mod told;
mod tune;
mod who;

pub use mount::serve;
