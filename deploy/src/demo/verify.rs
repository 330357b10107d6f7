//! Compares copies with their sources, byte by byte.

use std::{
    fs::File,
    io::Read,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, ensure};

use super::{input::Tree, progress};
use crate::stop::Stop;

const THREADS: usize = 8;
const BUFFER_BYTES: usize = 1 << 20;

/// Compares every file of `tree` with its copy below `target`; returns the bytes read from the copies.
pub(super) fn tree(tree: &Tree, target: &Path, stop: &Stop) -> Result<u64> {
    let total = tree.bytes();
    let bar = progress::bytes(total);
    let next = AtomicUsize::new(0);
    let outcome = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut ours = vec![0; BUFFER_BYTES];
                    let mut theirs = vec![0; BUFFER_BYTES];
                    while let Some((below, size)) =
                        tree.files.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let (source, copy) = (tree.root.join(below), target.join(below));
                        let compared = stop
                            .check()
                            .and_then(|()| file(&source, &copy, &mut ours, &mut theirs));
                        if compared.is_err() {
                            // Nobody takes another file.
                            next.store(tree.files.len(), Ordering::Relaxed);
                        }
                        compared?;
                        bar.inc(*size);
                    }
                    Ok(())
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a comparing thread does not panic"))
            .collect::<Result<Vec<()>>>()
    });
    bar.finish_and_clear();
    outcome.map(|_| total)
}

fn file(source: &Path, copy: &Path, ours: &mut [u8], theirs: &mut [u8]) -> Result<()> {
    let mut left = File::open(source).with_context(|| format!("open {}", source.display()))?;
    let mut right = File::open(copy).with_context(|| format!("open {}", copy.display()))?;
    let (left_len, right_len) = (left.metadata()?.len(), right.metadata()?.len());
    ensure!(
        left_len == right_len,
        "{} has {right_len} bytes, its source {left_len}",
        copy.display()
    );
    let mut at = 0;
    loop {
        let count = left.read(ours).with_context(|| format!("read {}", source.display()))?;
        if count == 0 {
            return Ok(());
        }
        right
            .read_exact(&mut theirs[..count])
            .with_context(|| format!("read {} at {at}", copy.display()))?;
        if ours[..count] != theirs[..count] {
            let place = (0..count).find(|&i| ours[i] != theirs[i]).unwrap_or_default();
            anyhow::bail!("{} differs from its source at byte {}", copy.display(), at + place);
        }
        at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_byte_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (source, copy) = (folder.path().join("a"), folder.path().join("b"));
        let (mut ours, mut theirs) = (vec![0; 64], vec![0; 64]);
        let mut bytes = vec![7_u8; 200];
        std::fs::write(&source, &bytes).unwrap();
        std::fs::write(&copy, &bytes).unwrap();
        file(&source, &copy, &mut ours, &mut theirs).unwrap();
        bytes[130] = 8;
        std::fs::write(&copy, &bytes).unwrap();
        let problem = file(&source, &copy, &mut ours, &mut theirs).unwrap_err().to_string();
        assert!(problem.ends_with("at byte 130"), "{problem}");
    }
}
