//! The FUSE mount: the kernel's requests, answered by [`ff2_client`].
//!
//! Owns the translation between the two and what only a mount needs: who asks (with supplementary
//! groups), open handles, which inodes the kernel knows, and when its caches may stay. It keeps no data
//! and no attributes of its own; what is cached is cached by the kernel, until another mount changes it,
//! the cache lease ends, or [`ff2_daemon::config::MountConfig::cache_ms`] passed, or by the client library.
//!
//! The story of a request: one of fuser's threads reads it, copies what must outlive the read, and
//! starts a task; the task asks the client library and replies. A request that waits for a failed
//! server therefore holds no thread. The kernel cannot take a request back once it was read (fuser
//! refuses interrupts), so a request that takes long looks by itself whether its process is being
//! killed, and answers then; what only asks ends with it, what changes something goes on to its end.
//! The mount point's own attributes and space are answered from memory when
//! the namespace is silent, so that the tools that bring servers back do not wait for them.
//!
//! A mount whose process was killed is taken away by a small guard process; see [`guard`].

mod attr;
mod coherence;
mod copies;
mod device;
mod files;
mod fs;
pub mod guard;
pub mod helper;
mod known;
mod limits;
mod listing;
mod lock_flags;
mod lock_owners;
mod mount;
mod mounted;
mod ops;
mod requests;
mod told;
mod tune;
mod who;

pub use mount::serve;
