//! Copies a tree with several threads, as `cp -r` of a training set would.

use std::{
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

use super::{input::Tree, progress};

const THREADS: usize = 8;
const BUFFER_BYTES: usize = 1 << 20;
/// Finished files that wait to be counted.
const REPORTS_MAX: usize = 64;

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) files: usize,
    pub(super) bytes: u64,
    /// The longest time in which no file was finished and no bytes moved.
    pub(super) pause_max: Duration,
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
    mut after_file: impl FnMut() -> Result<()>,
) -> Result<Copied> {
    for (below, _) in &tree.files {
        let folder =
            target.join(below).parent().map(Path::to_path_buf).context("files lie in folders")?;
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let bar = progress::bytes(tree.files.iter().map(|(_, size)| size).sum());
    let next = AtomicUsize::new(0);
    let (reports, inbox) = mpsc::sync_channel(REPORTS_MAX);
    let mut copied = Copied::default();
    let outcome = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (reports, next) = (reports.clone(), &next);
                scope.spawn(move || worker(tree, target, next, &reports))
            })
            .collect();
        drop(reports);
        let mut failed = Ok(());
        let mut last = Instant::now();
        for report in inbox {
            copied.pause_max = copied.pause_max.max(last.elapsed());
            last = Instant::now();
            match report {
                Report::Bytes(count) => {
                    copied.bytes += count;
                    bar.inc(count);
                }
                Report::FileDone => {
                    copied.files += 1;
                    if failed.is_ok() {
                        failed = bar.suspend(&mut after_file);
                        // A drill's own time is no pause of the file system.
                        last = Instant::now();
                    }
                }
            }
        }
        for worker in workers {
            worker.join().expect("a copying thread does not panic")?;
        }
        failed
    });
    bar.finish();
    outcome.map(|()| copied)
}

fn worker(
    tree: &Tree,
    target: &Path,
    next: &AtomicUsize,
    reports: &mpsc::SyncSender<Report>,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Some((below, _)) = tree.files.get(next.fetch_add(1, Ordering::Relaxed)) {
        let (from, to) = (tree.root.join(below), target.join(below));
        let mut source = File::open(&from).with_context(|| format!("open {}", from.display()))?;
        let mut copy = File::create(&to).with_context(|| format!("create {}", to.display()))?;
        loop {
            let count =
                source.read(&mut buffer).with_context(|| format!("read {}", from.display()))?;
            if count == 0 {
                break;
            }
            copy.write_all(&buffer[..count]).with_context(|| format!("write {}", to.display()))?;
            // The receiver outlives the workers; should it be gone, nobody counts any more.
            let _ = reports.send(Report::Bytes(count as u64));
        }
        let _ = reports.send(Report::FileDone);
    }
    Ok(())
}
