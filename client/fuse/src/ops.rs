//! The operations, one module per group. Each is an async function of the mount and the caller that
//! returns what the kernel is to be told; `fs.rs` makes the replies.

pub(crate) mod data;
pub(crate) mod directory;
pub(crate) mod entry;
pub(crate) mod lock;
pub(crate) mod name;
pub(crate) mod open;
pub(crate) mod xattr;
