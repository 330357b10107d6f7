//! Keeps keys and their use in step with files: takes over what the operator changed, and writes what was used.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{accounts::Accounts, keys::Keys};

/// A change of keys is noticed, and use is written, so often. A crash forgets at most so much use.
const PERIOD: Duration = Duration::from_secs(2);

/// Reads both files and follows them until `stop`; what was used is written once more then. Of several that follow the
/// same files those write it that `counts`; all take over what was written.
///
/// # Errors
/// Files that are there and cannot be read.
pub fn start(
    accounts: Arc<Accounts>,
    path: PathBuf,
    counts: impl Fn() -> bool + Send + 'static,
    stop: CancellationToken,
) -> Result<JoinHandle<Result<()>>> {
    let keys = Keys::read(&path)?.unwrap_or_default();
    let beside = used_beside(&path);
    let used = read(&beside)?;
    let mut changed = modified(&path);
    accounts.load(&keys, &used);
    Ok(tokio::spawn(async move {
        let mut known = used;
        loop {
            let stopped = tokio::time::timeout(PERIOD, stop.cancelled()).await.is_ok();
            let now = modified(&path);
            if now != changed {
                changed = now;
                match Keys::read(&path) {
                    Ok(keys) => accounts.load(&keys.unwrap_or_default(), &known),
                    // The keys of before go on: a typing error must not lock everybody out.
                    Err(error) => {
                        tracing::error!(%error, "the changed file of keys is not taken over")
                    }
                }
            }
            // A file that cannot be read now is read the next time, or written anew.
            let there = read(&beside).unwrap_or_default();
            accounts.raise(&there);
            let used = accounts.used();
            if used != there && counts() {
                write(&beside, &used)?;
            }
            known.extend(there.into_iter().chain(used));
            if stopped {
                return Ok(());
            }
        }
    }))
}

fn used_beside(path: &Path) -> PathBuf {
    path.with_extension("used.json")
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn read(path: &Path) -> Result<BTreeMap<String, u64>> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn write(path: &Path, used: &BTreeMap<String, u64>) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec_pretty(used)?)
        .with_context(|| format!("write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::{keys::KeyLimits, permit::Permit};

    #[tokio::test(start_paused = true)]
    async fn keys_come_and_go_while_it_runs_and_their_use_outlives_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let mut keys = Keys::default();
        let first = keys.add("first", KeyLimits::default()).unwrap();
        keys.write(&path).unwrap();
        let (accounts, stop) = (Arc::new(Accounts::default()), CancellationToken::new());
        let watched = start(accounts.clone(), path.clone(), || true, stop.clone()).unwrap();
        Permit::of(accounts.find(&first).unwrap()).unwrap().charge(7);
        let second = keys.add("second", KeyLimits::default()).unwrap();
        // The clock of files ticks in steps.
        std::thread::sleep(Duration::from_millis(20));
        keys.write(&path).unwrap();
        tokio::time::sleep(2 * PERIOD).await;
        assert!(accounts.find(&second).is_some());
        fs::write(&path, "{").unwrap();
        tokio::time::sleep(2 * PERIOD).await;
        assert!(accounts.find(&second).is_some(), "a broken file changes nothing");
        keys.remove("second").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        keys.write(&path).unwrap();
        tokio::time::sleep(2 * PERIOD).await;
        assert!(accounts.find(&second).is_none());
        stop.cancel();
        watched.await.unwrap().unwrap();
        let again = Arc::new(Accounts::default());
        let watched = start(again.clone(), path, || true, stop).unwrap();
        watched.await.unwrap().unwrap();
        assert_eq!(again.used()["first"], 7);
    }
}
