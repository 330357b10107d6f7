//! Copies a tree with several threads, as `cp -r` of a training set would.

use std::{
    fmt,
    fs::{self, File},
    io::{Read, Write},
    path::Path,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use indicatif::{HumanBytes, HumanCount};

use super::{input::Tree, progress, summary::per_second};
use crate::stop::Stop;

const THREADS: usize = 8;
const BUFFER_BYTES: usize = 1 << 20;
/// Finished files that wait to be counted.
const REPORTS_MAX: usize = 64;

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) files: usize,
    pub(super) bytes: u64,
    pub(super) took: Duration,
    /// The longest time for which any thread waited in one call to the mount.
    pub(super) pause_max: Duration,
}

impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  {} files, {} in {:.1} s: {:.0} files/s, {}/s",
            HumanCount(self.files as u64),
            HumanBytes(self.bytes),
            self.took.as_secs_f64(),
            per_second(self.files as u64, self.took),
            HumanBytes(per_second(self.bytes, self.took) as u64)
        )
    }
}

/// A message of a copying thread.
enum Report {
    Bytes(u64),
    FileDone,
}

/// Copies all files of `tree` below `target`; `after_file` runs on the calling thread after each.
pub(super) fn tree(
    tree: &Tree,
    target: &Path,
    stop: &Stop,
    mut after_file: impl FnMut() -> Result<()>,
) -> Result<Copied> {
    let started = Instant::now();
    make_folders(tree, target, stop)?;
    let bar = progress::bytes(tree.bytes());
    let next = AtomicUsize::new(0);
    let (reports, inbox) = mpsc::sync_channel(REPORTS_MAX);
    let mut copied = Copied::default();
    let outcome = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                let mut worker = Worker {
                    tree,
                    target,
                    next: &next,
                    stop,
                    reports: reports.clone(),
                    pause_max: Duration::ZERO,
                };
                scope.spawn(move || worker.copy_all().map(|()| worker.pause_max))
            })
            .collect();
        drop(reports);
        let mut failed = Ok(());
        // It goes out of scope with the loop, which tells the workers to end.
        for report in inbox {
            match report {
                Report::Bytes(count) => {
                    copied.bytes += count;
                    bar.inc(count);
                }
                Report::FileDone => {
                    copied.files += 1;
                    failed = bar.suspend(&mut after_file);
                    if failed.is_err() {
                        break;
                    }
                }
            }
        }
        for worker in workers {
            let pause = worker.join().expect("a copying thread does not panic")?;
            copied.pause_max = copied.pause_max.max(pause);
        }
        failed
    });
    bar.finish_and_clear();
    copied.took = started.elapsed();
    outcome.map(|()| copied)
}

fn make_folders(tree: &Tree, target: &Path, stop: &Stop) -> Result<()> {
    // Files of a folder follow each other.
    let mut last = None;
    for (below, _) in &tree.files {
        let folder = below.parent().context("files lie in folders")?;
        if last != Some(folder) {
            stop.check()?;
            let folder = target.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        last = Some(folder);
    }
    Ok(())
}

struct Worker<'a> {
    tree: &'a Tree,
    target: &'a Path,
    next: &'a AtomicUsize,
    stop: &'a Stop,
    reports: mpsc::SyncSender<Report>,
    pause_max: Duration,
}

impl Worker<'_> {
    fn copy_all(&mut self) -> Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some((below, _)) = self.tree.files.get(self.next.fetch_add(1, Ordering::Relaxed))
        {
            let copied =
                self.copy(&self.tree.root.join(below), &self.target.join(below), &mut buffer);
            if copied.is_err() {
                // Nobody takes another file.
                self.next.store(self.tree.files.len(), Ordering::Relaxed);
            }
            copied?;
            if self.reports.send(Report::FileDone).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn copy(&mut self, from: &Path, to: &Path, buffer: &mut [u8]) -> Result<()> {
        let mut source = File::open(from).with_context(|| format!("open {}", from.display()))?;
        let copy = self.timed(|| File::create(to));
        let mut copy = copy.with_context(|| format!("create {}", to.display()))?;
        loop {
            self.stop.check()?;
            let count = source.read(buffer).with_context(|| format!("read {}", from.display()))?;
            if count == 0 {
                break;
            }
            let written = self.timed(|| copy.write_all(&buffer[..count]));
            written.with_context(|| format!("write {}", to.display()))?;
            // Whether anybody counts is looked at after each file.
            let _ = self.reports.send(Report::Bytes(count as u64));
        }
        self.timed(|| drop(copy));
        Ok(())
    }

    /// Only calls to the mount count: a drill that holds the reports up is no pause of the file system.
    fn timed<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let outcome = call();
        self.pause_max = self.pause_max.max(started.elapsed());
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Reason;

    fn source() -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for i in 0..40_u64 {
            let below = Path::new(&format!("d{}", i % 3)).join(format!("f{i}"));
            fs::create_dir_all(folder.path().join(&below).parent().unwrap()).unwrap();
            fs::write(folder.path().join(&below), vec![i as u8; i as usize]).unwrap();
            files.push((below, i));
        }
        let root = folder.path().to_path_buf();
        (folder, Tree { root, files })
    }

    #[test]
    fn all_files_are_copied_and_counted() {
        let (_folder, from) = source();
        let to = tempfile::tempdir().unwrap();
        let mut seen = 0;
        let copied = tree(&from, to.path(), &Stop::default(), || {
            seen += 1;
            Ok(())
        });
        let copied = copied.unwrap();
        assert_eq!((copied.files, copied.bytes, seen), (40, from.bytes(), 40));
        for (below, _) in &from.files {
            let (left, right) = (from.root.join(below), to.path().join(below));
            assert_eq!(fs::read(left).unwrap(), fs::read(right).unwrap());
        }
    }

    #[test]
    fn a_stop_and_a_failed_drill_end_the_copy() {
        let (_folder, from) = source();
        let to = tempfile::tempdir().unwrap();
        let failed = tree(&from, to.path(), &Stop::default(), || anyhow::bail!("drill"));
        assert_eq!(failed.unwrap_err().to_string(), "drill");
        let stop = Stop::default();
        stop.request(Reason::Signal);
        let stopped = tree(&from, to.path(), &stop, || Ok(()));
        assert_eq!(stopped.unwrap_err().to_string(), "interrupted");
    }
}
