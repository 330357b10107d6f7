//! What ranks print goes through a pipe to their log. The job does not notice when the log's disk is full.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, PipeReader, Read, Write},
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use crate::limits;

/// Is given what ranks print, as it comes: the rank, and some bytes.
pub type Echo = Arc<dyn Fn(u32, &[u8]) + Send + Sync>;

/// Copies until nobody has the other end any more. Returns how many bytes were dropped.
pub(crate) fn follow(
    rank: u32,
    mut pipe: PipeReader,
    path: PathBuf,
    echo: Option<Echo>,
) -> io::Result<JoinHandle<u64>> {
    let thread = thread::Builder::new().name(format!("log-{rank}"));
    thread.spawn(move || {
        let mut log = Log::new(path);
        let mut bytes = vec![0; limits::LOG_READ];
        loop {
            match pipe.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => {
                    if let Some(echo) = &echo {
                        echo(rank, &bytes[..count]);
                    }
                    log.take(&bytes[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        log.finish()
    })
}

struct Log {
    path: PathBuf,
    file: Option<File>,
    /// What could not be written yet.
    held: VecDeque<u8>,
    dropped: u64,
    /// Of those that were dropped, those that the log does not tell of yet.
    untold: u64,
    again_at: Option<Instant>,
}

impl Log {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, held: VecDeque::new(), dropped: 0, untold: 0, again_at: None }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.held.extend(bytes);
        if self.again_at.is_none_or(|at| at <= Instant::now()) {
            self.write();
        }
        let excess = self.held.len().saturating_sub(limits::LOG_HELD);
        self.held.drain(..excess);
        self.dropped += excess as u64;
        self.untold += excess as u64;
    }

    fn write(&mut self) {
        self.again_at = match self.try_write() {
            Ok(()) => None,
            Err(_) => {
                // It may be another file next time: who rotates logs may have moved it.
                self.file = None;
                Some(Instant::now() + limits::LOG_RETRY)
            }
        };
    }

    fn try_write(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                none.insert(file)
            }
        };
        if self.untold > 0 {
            writeln!(
                file,
                "\n[{} bytes are missing here: the log could not be written]",
                self.untold
            )?;
            self.untold = 0;
        }
        while !self.held.is_empty() {
            let (front, _) = self.held.as_slices();
            let written = file.write(front)?;
            self.held.drain(..written);
        }
        Ok(())
    }

    fn finish(mut self) -> u64 {
        self.write();
        self.dropped + self.held.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        // Each write to it fails as on a full disk.
        let mut log = Log::new("/dev/full".into());
        let line = vec![b'x'; 100_000];
        for _ in 0..50 {
            log.take(&line);
        }
        assert_eq!(log.held.len(), limits::LOG_HELD);
        assert_eq!(log.dropped, 50 * 100_000 - limits::LOG_HELD as u64);
        // There is room again.
        let dir = tempfile::tempdir().unwrap();
        log.path = dir.path().join("log");
        log.again_at = None;
        log.take(b"last\n");
        let path = log.path.clone();
        assert_eq!(log.finish(), 50 * 100_000 - limits::LOG_HELD as u64);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains("bytes are missing here") && text.ends_with("last\n"));
    }

    #[test]
    fn all_that_a_rank_prints_is_in_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (reader, mut writer) = io::pipe().unwrap();
        let following = follow(0, reader, path.clone(), None).unwrap();
        for n in 0..10_000 {
            writeln!(writer, "line {n}").unwrap();
        }
        drop(writer);
        assert_eq!(following.join().unwrap(), 0);
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 10_000);
    }
}
