//! The namespace machine through its public interface: the rules of each operation, exactly-once
//! answers, and a long random comparison with a plain model of a POSIX tree.
#![expect(clippy::unwrap_used, reason = "a test ends where its setting cannot be made")]

mod acls;
mod allotted;
mod atimes;
mod attributes;
mod commands;
mod confined;
mod files;
mod fsck;
mod inline;
mod links;
mod locks;
mod mend;
mod model;
mod names;
mod ops;
mod paths;
mod permissions;
mod quotas;
mod renames;
mod sessions;
mod snapshots;
mod trash;
mod truncation;
mod unnamed;
mod volume;
mod xattrs;
