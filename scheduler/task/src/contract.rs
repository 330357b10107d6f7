//! The job's folder: how a job is asked to make room, how it answers, and what it keeps.
//!
//! The files of the contract are plain ones, so that any language can follow it, on the shared file system too:
//!
//! - `suspend-N` appears when the job is asked to make room; its first line says until when, in seconds of the
//!   Unix clock, and a second one, if there is one, how many bytes a second it may write in all for that. N is the
//!   attempt, so that nodes which start at different times see no request of an earlier one.
//! - `ack-N` is made by any rank of the job, when all that matters is saved: the rest of the job is ended at once.
//! - `slot-N` tells when the job writes its checkpoints, if it told the scheduler of them ([`CheckpointSlot`]). It may
//!   change at any time.
//! - `port-N` is the port that rank 0 of several nodes may listen on.
//! - `state` is the job's, for what it must know when it starts again.
//! - `status` is a line that the job says of itself, for people to see.
//! - `script` is what runs, if the job came as a script.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{CheckpointSlot, limits};

/// What a job is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MakeRoom {
    /// Within this time.
    pub grace: Duration,
    /// What all of its nodes together may write for that; None: as fast as they can.
    pub bytes_per_s: Option<u64>,
}

impl MakeRoom {
    /// With what it saves as fast as it can.
    pub fn within(grace: Duration) -> Self {
        Self { grace, bytes_per_s: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFolder {
    path: PathBuf,
    attempt: u32,
}

impl JobFolder {
    /// As an attempt sees it.
    pub fn new(path: impl Into<PathBuf>, attempt: u32) -> Self {
        Self { path: path.into(), attempt }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn request(&self) -> PathBuf {
        self.path.join(format!("suspend-{}", self.attempt))
    }

    pub fn acknowledgement(&self) -> PathBuf {
        self.path.join(format!("ack-{}", self.attempt))
    }

    pub fn slot(&self) -> PathBuf {
        self.path.join(format!("slot-{}", self.attempt))
    }

    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// What the job says of itself, on a line.
    pub fn status(&self) -> PathBuf {
        self.path.join("status")
    }

    pub fn script(&self) -> PathBuf {
        self.path.join("script")
    }

    /// Of a rank, appended to by each attempt.
    pub fn log(&self, rank: u32) -> PathBuf {
        self.path.join("logs").join(format!("rank-{rank}.log"))
    }

    /// Before an attempt begins on a node: nothing of earlier ones' ends is left, nor, if it is `alone` (the only node
    /// of the attempt), of an earlier one with its number.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn prepare(&self, checkpoint: &Path, alone: bool) -> io::Result<()> {
        fs::create_dir_all(self.path.join("logs"))?;
        fs::create_dir_all(checkpoint)?;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let attempt = name.to_str().and_then(|name| {
                let mut kinds = ["suspend-", "ack-", "slot-", "port-"].iter();
                kinds.find_map(|kind| name.strip_prefix(kind)?.parse::<u32>().ok())
            });
            let is_old = attempt.is_some_and(|of| of < self.attempt || alone);
            if is_old {
                gone(fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }

    /// Puts down what runs, if it is not there. One node of the job does so, and the others wait for it: a file that is
    /// replaced just when it is executed may be gone for who does.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn put_script(&self, text: &str) -> io::Result<()> {
        if self.has_script(text) {
            return Ok(());
        }
        let draft = self.path.join(".script");
        gone(fs::remove_file(&draft))?;
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o755).open(&draft)?;
        file.write_all(text.as_bytes())?;
        drop(file);
        fs::rename(draft, self.script())
    }

    /// Waits until another node has put it down.
    ///
    /// # Errors
    /// It does not come.
    pub fn await_script(&self, text: &str) -> io::Result<()> {
        let until = Instant::now() + limits::SCRIPT_WAIT;
        while !self.has_script(text) {
            if Instant::now() >= until {
                let why = "the first node of the job has not put its script down";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            thread::sleep(limits::ACK_LOOK);
        }
        Ok(())
    }

    fn has_script(&self, text: &str) -> bool {
        fs::read(self.script()).is_ok_and(|bytes| bytes == text.as_bytes())
    }

    /// Asks the job to make room. The file is whole when it appears. `by` tells nodes apart that do so at the same
    /// time.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn ask(&self, room: MakeRoom, by: u32) -> io::Result<()> {
        let until = SystemTime::now() + room.grace;
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let rate = room.bytes_per_s.map(|rate| format!("{rate}\n")).unwrap_or_default();
        let draft = self.path.join(format!(".suspend-{by}"));
        fs::write(&draft, format!("{until}\n{rate}"))?;
        fs::rename(draft, self.request())
    }

    /// Tells the job when it writes its checkpoints from now on. The file is whole whenever it is read. `by` as for
    /// [`JobFolder::ask`].
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn put_slot(&self, slot: CheckpointSlot, by: u32) -> io::Result<()> {
        let draft = self.path.join(format!(".slot-{by}"));
        fs::write(&draft, format!("{slot}\n"))?;
        fs::rename(draft, self.slot())
    }

    /// Tells the other nodes which port was free. The file is whole when it appears.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn put_port(&self, port: u16) -> io::Result<()> {
        let draft = self.path.join(".port");
        fs::write(&draft, format!("{port}\n"))?;
        fs::rename(draft, self.port())
    }

    /// Waits until the first node has told it; None if it does not.
    pub(crate) fn await_port(&self, within: Duration) -> Option<u16> {
        let until = Instant::now() + within;
        loop {
            let told =
                fs::read_to_string(self.port()).ok().and_then(|text| text.trim().parse().ok());
            if told.is_some() || Instant::now() >= until {
                return told;
            }
            thread::sleep(limits::ACK_LOOK);
        }
    }

    fn port(&self) -> PathBuf {
        self.path.join(format!("port-{}", self.attempt))
    }

    /// What the job was told; nothing if it has no slot.
    ///
    /// # Errors
    /// It cannot be read, or somebody else wrote there.
    pub fn read_slot(&self) -> io::Result<Option<CheckpointSlot>> {
        match fs::read_to_string(self.slot()) {
            Ok(text) => {
                let slot = text.parse();
                slot.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
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

/// A file that is not there was removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_attempt_finds_its_state_and_no_old_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job");
        let folder = JobFolder::new(&path, 1);
        let checkpoint = dir.path().join("checkpoint");
        folder.prepare(&checkpoint, false).unwrap();
        assert_eq!(folder.state_word().unwrap(), "");
        fs::write(folder.state(), "step 7").unwrap();
        folder.ask(MakeRoom::within(Duration::from_secs(5)), 0).unwrap();
        assert_eq!(fs::read_to_string(folder.request()).unwrap().lines().count(), 1);
        let room = MakeRoom { grace: Duration::from_secs(5), bytes_per_s: Some(7 << 30) };
        folder.ask(room, 1).unwrap();
        let asked = fs::read_to_string(folder.request()).unwrap();
        assert_eq!(asked.lines().nth(1), Some("7516192768"));
        fs::write(folder.acknowledgement(), "").unwrap();
        assert!(folder.request().exists() && folder.is_acknowledged());
        // Another node of the same attempt, later.
        folder.prepare(&checkpoint, false).unwrap();
        assert!(folder.request().exists() && folder.is_acknowledged());
        let next = JobFolder::new(&path, 2);
        next.prepare(&checkpoint, false).unwrap();
        assert!(!folder.request().exists() && !folder.is_acknowledged());
        assert!(!next.request().exists() && !next.is_acknowledged());
        assert_eq!(next.state_word().unwrap(), "step 7");
        // Whoever is alone may begin again with the same number.
        next.ask(MakeRoom::within(Duration::from_secs(5)), 0).unwrap();
        next.prepare(&checkpoint, true).unwrap();
        assert!(!next.request().exists());
    }

    #[test]
    fn a_slot_is_of_one_attempt_and_may_change() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = dir.path().join("checkpoint");
        let first = JobFolder::new(dir.path(), 1);
        first.prepare(&checkpoint, true).unwrap();
        assert_eq!(first.read_slot().unwrap(), None);
        let mut slot = CheckpointSlot {
            every_ms: 300_000,
            phase_ms: 5_000,
            length_ms: 280_000,
            bytes_per_s: 1 << 40,
        };
        first.put_slot(slot, 0).unwrap();
        assert_eq!(fs::read_to_string(first.slot()).unwrap(), "300000 5000 280000 1099511627776\n");
        slot.phase_ms = 90_000;
        first.put_slot(slot, 0).unwrap();
        assert_eq!(first.read_slot().unwrap(), Some(slot));
        let second = JobFolder::new(dir.path(), 2);
        second.prepare(&checkpoint, false).unwrap();
        assert_eq!((first.read_slot().unwrap(), second.read_slot().unwrap()), (None, None));
        fs::write(second.slot(), "soon").unwrap();
        assert!(second.read_slot().unwrap_err().to_string().contains("soon"));
    }

    #[test]
    fn a_script_is_whole_and_can_be_executed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = JobFolder::new(dir.path(), 1);
        for text in ["#!/bin/sh\nexit 3\n", "#!/bin/sh\nexit 4\n"] {
            folder.put_script(text).unwrap();
            folder.await_script(text).unwrap();
            assert_eq!(fs::read_to_string(folder.script()).unwrap(), text);
        }
        let status = std::process::Command::new(folder.script()).status().unwrap();
        assert_eq!(status.code(), Some(4));
    }

    #[test]
    fn a_state_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let folder = JobFolder::new(dir.path(), 1);
        fs::write(folder.state(), "x".repeat(5_000)).unwrap();
        assert!(folder.state_word().unwrap_err().to_string().contains("4096 bytes"));
    }
}
