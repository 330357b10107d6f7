//! One daemon per folder: `<data_dir>/pid` is locked as long as the daemon runs, and says which process
//! that is, so that `ff2ctl` never signals a stranger.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::process::ProcessId;

const NAME: &str = "pid";

/// The lock; it ends with this value, and with the process in any case.
#[derive(Debug)]
pub struct PidFile {
    file: File,
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // The lock ends with the file; its text must not name a process that serves something else.
        if let Err(error) = self.file.set_len(0) {
            tracing::warn!(%error, "cannot empty the pid file");
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PidFileError {
    #[error(
        "{} is in use by process {holder}: each daemon needs a folder of its own; stop that one \
         (`ff2ctl down`) or change data_dir", path.display()
    )]
    InUse { path: PathBuf, holder: String },
    #[error("cannot write {}: {source}; does this user own the folder?", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl PidFile {
    /// Makes the folder (for this user only) if it is missing, locks it, and writes who holds it.
    pub fn lock(data_dir: &Path) -> Result<Self, PidFileError> {
        let path = data_dir.join(NAME);
        let failed = |source| PidFileError::Io { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.split_whitespace().next().unwrap_or("(unknown)").to_owned();
                return Err(PidFileError::InUse { path: data_dir.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let me = ProcessId::current().map_err(failed)?;
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{} {}", me.pid, me.start).map_err(failed)?;
        Ok(Self { file })
    }

    /// The daemon that runs on this folder, if one does.
    pub fn running(data_dir: &Path) -> Option<ProcessId> {
        let text = fs::read_to_string(data_dir.join(NAME)).ok()?;
        let mut words = text.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        let start = words.next()?.parse().ok()?;
        Some(ProcessId { pid, start }).filter(|process| process.is_running())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_daemons_never_share_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        assert_eq!(PidFile::running(&folder), None);
        let held = PidFile::lock(&folder).unwrap();
        assert_eq!(PidFile::running(&folder), Some(ProcessId::current().unwrap()));
        let refusal = PidFile::lock(&folder).unwrap_err().to_string();
        assert!(refusal.contains(&std::process::id().to_string()), "{refusal}");
        assert!(refusal.contains("ff2ctl down"), "{refusal}");
        drop(held);
        PidFile::lock(&folder).unwrap();
    }

    #[test]
    fn a_file_left_by_a_dead_process_names_nobody() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "garbage", "1", "1 99999999999999", "4294967295 1"] {
            fs::write(dir.path().join(NAME), text).unwrap();
            assert_eq!(PidFile::running(dir.path()), None, "{text:?}");
        }
        PidFile::lock(dir.path()).unwrap();
    }
}
