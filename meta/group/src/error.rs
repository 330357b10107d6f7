//! Why a group's folder cannot be used, and how the process ends when its disk fails.

use std::path::{Path, PathBuf};

use ff2_proto::GroupId;

#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    #[error("open the database in {}", folder.display())]
    Open {
        folder: PathBuf,
        #[source]
        source: rocksdb::Error,
    },
    #[error("make the folder {}", folder.display())]
    Folder {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is already formatted; format never replaces a group's data", folder.display())]
    AlreadyFormatted { folder: PathBuf },
    #[error("{} belongs to {found}, not to {wanted}", folder.display())]
    WrongOwner { folder: PathBuf, found: String, wanted: String },
    #[error(
        "{} has format {found}, and this release reads none above {known}: nothing was touched; \
         install a newer release",
        folder.display()
    )]
    UnknownFormat { folder: PathBuf, found: u32, known: u32 },
    #[error("{}: record `{record}` is damaged or missing", folder.display())]
    Damaged { folder: PathBuf, record: String },
    #[error("bad group configuration: {0}")]
    Config(String),
    #[error("raft refuses the stored state of {group:?}: {reason}")]
    Raft { group: GroupId, reason: String },
    #[error("start the thread of {group:?}")]
    Thread {
        group: GroupId,
        #[source]
        source: std::io::Error,
    },
}

/// Ends the process: a replica whose disk failed may have promised what it does not hold.
pub(crate) fn stop(folder: &Path, action: &str, error: &rocksdb::Error) -> ! {
    let folder = folder.display();
    let text = error.to_string();
    if text.contains("No space left on device") {
        tracing::error!("the disk that holds {folder} is full: free space on it, then start again");
    } else {
        tracing::error!("the database in {folder} failed to {action}: {text}; stopping");
    }
    eprintln!("ff2: the database in {folder} failed to {action}: {text}");
    std::process::abort()
}
