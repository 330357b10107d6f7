//! What is known of scrubs: how far each target's is, and when its last one ended.
//!
//! The ends are kept in the data folder (`scrub.json`), so that a restart begins none anew.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use ff2_proto::{TargetId, pb};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{replace::replace, target_driver::TargetHandle};

/// A walk that has ended, or, before the first, when the target was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Walked {
    /// How often a scrub had been asked for when it began.
    pub(super) round: u64,
    /// Unix time.
    pub(super) at_s: u64,
    pub(super) chunks: u64,
    pub(super) damaged: u64,
    /// False: there was none yet.
    pub(super) is_scrubbed: bool,
}

/// A walk that is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) done: u64,
    /// When it began.
    pub(super) total: u64,
    pub(super) damaged: u64,
}

/// Of all targets of the node.
#[derive(Debug)]
pub struct Scrubs {
    path: PathBuf,
    walked: Mutex<BTreeMap<TargetId, Walked>>,
    walking: Mutex<BTreeMap<TargetId, Tally>>,
}

impl Scrubs {
    /// # Errors
    ///
    /// The file is there but cannot be read, or says something else.
    pub fn load(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join("scrub.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => b"{}".to_vec(),
            outcome => outcome.with_context(|| format!("read {}", path.display()))?,
        };
        let walked: BTreeMap<u64, Walked> = serde_json::from_slice(&text).with_context(|| {
            format!("parse {}: without the file all is scrubbed anew", path.display())
        })?;
        let walked = walked.into_iter().map(|(id, walked)| (TargetId(id), walked)).collect();
        Ok(Self { path, walked: Mutex::new(walked), walking: Mutex::default() })
    }

    /// Takes note of targets that are new: they are young, and their turn comes as if they had just had one.
    pub(super) fn meets(&self, ids: &[TargetId], now_s: u64) -> io::Result<()> {
        let mut all = self.walked.lock();
        let known = all.len();
        for id in ids {
            all.entry(*id).or_insert(Walked { at_s: now_s, ..Walked::default() });
        }
        if all.len() == known { Ok(()) } else { self.save(&all) }
    }

    /// Whether a target was asked for a scrub that it has not done, or had its last one long ago.
    pub(super) fn is_due(&self, id: TargetId, round: u64, now_s: u64, every: Duration) -> bool {
        self.walked.lock().get(&id).is_some_and(|walked| {
            let is_time = now_s.saturating_sub(walked.at_s) >= every.as_secs();
            walked.round < round || (is_time && !every.is_zero())
        })
    }

    pub(super) fn walks(&self, id: TargetId, tally: Tally) {
        self.walking.lock().insert(id, tally);
    }

    pub(super) fn gives_up(&self, id: TargetId) {
        self.walking.lock().remove(&id);
    }

    /// Notes the end of a walk, and forgets targets that are gone.
    pub(super) fn finished(
        &self,
        id: TargetId,
        walked: Walked,
        known: &[TargetId],
    ) -> io::Result<()> {
        self.gives_up(id);
        let mut all = self.walked.lock();
        all.insert(id, walked);
        all.retain(|id, _| known.contains(id));
        self.save(&all)
    }

    /// Under the lock: another disk's must not replace it with an older list.
    fn save(&self, all: &BTreeMap<TargetId, Walked>) -> io::Result<()> {
        let named: BTreeMap<u64, Walked> = all.iter().map(|(id, walked)| (id.0, *walked)).collect();
        replace(&self.path, &serde_json::to_vec_pretty(&named)?)
    }

    pub(crate) fn report(&self, handle: &TargetHandle) -> pb::ScrubReport {
        let id = handle.meta.id;
        let last = self.walked.lock().get(&id).copied().unwrap_or_default();
        let walking = self.walking.lock().get(&id).copied();
        let ended = Tally { done: last.chunks, total: last.chunks, damaged: last.damaged };
        let tally = walking.unwrap_or(ended);
        pb::ScrubReport {
            round: last.round,
            finished_at_s: if last.is_scrubbed { last.at_s } else { 0 },
            done_chunks: tally.done,
            total_chunks: tally.total.max(tally.done),
            damaged_chunks: tally.damaged,
            unrepaired_chunks: handle.seen().suspects.len() as u64,
            running: walking.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const ID: TargetId = TargetId(7);

    #[test]
    fn a_scrub_is_due_when_asked_for_and_when_it_is_time() {
        let dir = tempfile::tempdir().unwrap();
        let scrubs = Scrubs::load(dir.path()).unwrap();
        scrubs.meets(&[ID], 5).unwrap();
        scrubs.meets(&[ID], 100).unwrap();
        assert!(!scrubs.is_due(ID, 0, 86_404, DAY), "it is new");
        assert!(scrubs.is_due(ID, 0, 86_405, DAY), "a day since it was met first");
        assert!(!scrubs.is_due(ID, 0, 86_405, Duration::ZERO), "nobody asked");
        assert!(scrubs.is_due(ID, 1, 5, Duration::ZERO));
        let walked = Walked { round: 1, at_s: 1_000, chunks: 3, damaged: 1, is_scrubbed: true };
        scrubs.finished(ID, walked, &[ID]).unwrap();
        // As after a restart.
        let scrubs = Scrubs::load(dir.path()).unwrap();
        assert!(!scrubs.is_due(ID, 1, 1_000 + 86_399, DAY));
        assert!(scrubs.is_due(ID, 1, 1_000 + 86_400, DAY));
        assert!(scrubs.is_due(ID, 2, 1_001, Duration::ZERO));
        assert!(!scrubs.is_due(ID, 1, 1, DAY), "the clock was set back");
    }

    #[test]
    fn targets_that_are_gone_are_forgotten_and_a_broken_file_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let scrubs = Scrubs::load(dir.path()).unwrap();
        scrubs.finished(ID, Walked::default(), &[ID]).unwrap();
        scrubs.finished(TargetId(8), Walked::default(), &[TargetId(8)]).unwrap();
        let text = fs::read_to_string(dir.path().join("scrub.json")).unwrap();
        assert!(text.contains("\"8\"") && !text.contains("\"7\""), "{text}");
        fs::write(dir.path().join("scrub.json"), "{").unwrap();
        Scrubs::load(dir.path()).unwrap_err();
    }
}
