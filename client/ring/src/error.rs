//! What can go wrong, by what the caller can do about it.

use std::{io, path::PathBuf};

/// A failure of a ring as a whole; that of one operation is in its completion.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Use `read(2)` and `write(2)` there.
    #[error("{} is not on an ff2 mount that serves rings ({source}): use a path on the mount", path.display())]
    NotServed { path: PathBuf, source: io::Error },
    /// The mount's process refused, and says why.
    #[error("{why}")]
    Refused { errno: i32, why: String },
    /// Reap completions before you push more.
    #[error(
        "the ring is full: {entries} operations are not reaped yet; reap, or make a larger ring"
    )]
    Full { entries: u32 },
    /// An argument cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The mount's process is gone, or closed this ring. What was not reaped may or may not have
    /// happened; connect again.
    #[error("the mount closed the ring ({why}): connect again")]
    Closed { why: io::Error },
    #[error("{what}")]
    System { what: &'static str, source: io::Error },
}

impl Error {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::System { what, source: errno.into() }
    }

    /// The errno that says it best.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotServed { .. } => libc::EOPNOTSUPP,
            Self::Refused { errno, .. } => *errno,
            Self::Full { .. } => libc::EAGAIN,
            Self::Invalid(_) => libc::EINVAL,
            Self::Closed { .. } => libc::EPIPE,
            Self::System { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;
