//! The job's folder: how a job is asked to make room, how it answers, and what it keeps.
//!
//! The files of the contract are plain ones, so that any language can follow it, on the shared file system too:
//!
//! - `suspend` appears when the job is asked to make room; the text in it says until when, in seconds of the
//!   Unix clock.
//! - `ack` is made by any rank of the job, when all that matters is saved: the rest of the job is ended at once.
//! - `state` is the job's, for what it must know when it starts again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::limits;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFolder(PathBuf);

impl JobFolder {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn request(&self) -> PathBuf {
        self.0.join("suspend")
    }

    pub fn acknowledgement(&self) -> PathBuf {
        self.0.join("ack")
    }

    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// Of a rank, appended to by each attempt.
    pub fn log(&self, rank: u32) -> PathBuf {
        self.0.join("logs").join(format!("rank-{rank}.log"))
    }

    /// Before an attempt begins: nothing of the last one's end may be left.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn prepare(&self, checkpoint: &Path) -> io::Result<()> {
        fs::create_dir_all(self.0.join("logs"))?;
        fs::create_dir_all(checkpoint)?;
        for file in [self.request(), self.acknowledgement()] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks the job to make room within the grace. The file is whole when it appears.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn ask(&self, grace: Duration) -> io::Result<()> {
        let until = SystemTime::now() + grace;
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let draft = self.0.join(".suspend");
        fs::write(&draft, format!("{until}\n"))?;
        fs::rename(draft, self.request())
    }

    pub fn is_acknowledged(&self) -> bool {
        self.acknowledgement().exists()
    }

    /// What the job keeps for its next start; nothing if it kept none.
    ///
    /// # Errors
    /// It cannot be read, or is longer than a state may be.
    pub fn state_word(&self) -> io::Result<String> {
        let file = match fs::File::open(self.state()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() > limits::STATE_MAX {
            let why =
                format!("{} is longer than {} bytes", self.state().display(), limits::STATE_MAX);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        io::read_to_string(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_attempt_finds_its_state_and_no_old_request() {
        let dir = tempfile::tempdir().unwrap();
        let folder = JobFolder::new(dir.path().join("job"));
        let checkpoint = dir.path().join("checkpoint");
        folder.prepare(&checkpoint).unwrap();
        assert_eq!(folder.state_word().unwrap(), "");
        fs::write(folder.state(), "step 7").unwrap();
        folder.ask(Duration::from_secs(5)).unwrap();
        fs::write(folder.acknowledgement(), "").unwrap();
        assert!(folder.request().exists() && folder.is_acknowledged());
        folder.prepare(&checkpoint).unwrap();
        assert!(!folder.request().exists() && !folder.is_acknowledged());
        assert_eq!(folder.state_word().unwrap(), "step 7");
    }

    #[test]
    fn a_state_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let folder = JobFolder::new(dir.path());
        fs::write(folder.state(), "x".repeat(5_000)).unwrap();
        assert!(folder.state_word().unwrap_err().to_string().contains("4096 bytes"));
    }
}
