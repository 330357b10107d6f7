//! The writers of a load: they create files, append records, sync them, and read old ones back.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Not a divisor of any block or chunk size, so that records straddle all borders.
const RECORD_BYTES: usize = 5_003;
/// Records of one file before the next is begun.
const RECORDS_PER_FILE: u64 = 200;
/// A load that nobody stops ends by itself.
const TIME_MAX: Duration = Duration::from_secs(120);

/// What one writer may rely on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Acknowledged {
    folder: PathBuf,
    writer: u64,
    /// Records whose fsync returned.
    pub records: u64,
    /// The longest that one append with its fsync took.
    pub pause_max: Duration,
}

/// Writes until `stop` says so, or for two minutes. Any failure is one of the load.
pub fn write(folder: &Path, writer: u64, stop: impl Fn() -> bool) -> Result<Acknowledged> {
    let (state, outcome) = write_until_failure(folder, writer, stop);
    outcome.map(|()| state)
}

/// As [`write()`], for a mount that may die: also what was acknowledged before a failure.
pub fn write_until_failure(
    folder: &Path,
    writer: u64,
    stop: impl Fn() -> bool,
) -> (Acknowledged, Result<()>) {
    let started = Instant::now();
    let folder = folder.to_path_buf();
    let mut state = Acknowledged { folder, writer, records: 0, pause_max: Duration::ZERO };
    while !stop() && started.elapsed() < TIME_MAX {
        if let Err(failure) = state.append_one() {
            return (state, Err(failure));
        }
    }
    (state, Ok(()))
}

impl Acknowledged {
    fn append_one(&mut self) -> Result<()> {
        let begun = Instant::now();
        let path = self.path(self.records);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        file.write_all(&record(self.writer, self.records))
            .with_context(|| format!("append to {}", path.display()))?;
        file.sync_all().with_context(|| format!("sync {}", path.display()))?;
        self.records += 1;
        self.pause_max = self.pause_max.max(begun.elapsed());
        // A check at the end misses what was lost and overwritten: read back while the load runs.
        if self.records.is_multiple_of(7) {
            self.check_one(self.records * 5 / 7)?;
        }
        Ok(())
    }

    fn path(&self, record: u64) -> PathBuf {
        self.folder.join(format!("w{}-{}", self.writer, record / RECORDS_PER_FILE))
    }

    fn check_one(&self, number: u64) -> Result<()> {
        let path = self.path(number);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let mut found = vec![0; RECORD_BYTES];
        let at = (number % RECORDS_PER_FILE) * RECORD_BYTES as u64;
        file.read_exact_at(&mut found, at)
            .with_context(|| format!("read record {number} of {}", path.display()))?;
        ensure!(
            found == record(self.writer, number),
            "{}: record {number} is wrong",
            path.display()
        );
        Ok(())
    }

    /// Every acknowledged record is there, whole and in its place.
    pub fn check(&self) -> Result<()> {
        ensure!(self.records > 0, "writer {} wrote nothing", self.writer);
        for first in (0..self.records).step_by(RECORDS_PER_FILE as usize) {
            let path = self.path(first);
            let mut bytes = Vec::new();
            File::open(&path)
                .and_then(|mut file| file.read_to_end(&mut bytes))
                .with_context(|| format!("read {}", path.display()))?;
            let count = (self.records - first).min(RECORDS_PER_FILE);
            ensure!(
                bytes.len() >= count as usize * RECORD_BYTES,
                "{} has {} bytes, {count} records were acknowledged",
                path.display(),
                bytes.len()
            );
            for (place, found) in bytes.chunks_exact(RECORD_BYTES).take(count as usize).enumerate()
            {
                let number = first + place as u64;
                ensure!(
                    found == record(self.writer, number),
                    "{}: record {number} is wrong",
                    path.display()
                );
            }
        }
        Ok(())
    }
}

/// The bytes of a record: a function of its writer and number, different in every place.
fn record(writer: u64, number: u64) -> Vec<u8> {
    let mut state = writer << 32 ^ number ^ 0x9e37_79b9_7f4a_7c15;
    (0..RECORD_BYTES)
        .map(|_| {
            // xorshift64: no two places look alike, so a shifted or stale block is seen.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}
