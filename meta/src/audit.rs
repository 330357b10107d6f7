//! The audit log: who changed what of the cluster by this metad, and who was refused.
//!
//! An action has two lines. The first is on the disk before the action begins, the second before it is
//! answered, so that none happens without a trace; one with the first line only met the end of its metad.
//! Read-only calls leave no line. Refusals do as far as a budget lasts, so that nobody can push the actions
//! out of a log whose size is bounded ([`log`]).

mod log;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{cluster::wall_ms, limits};
use log::Log;
pub(crate) use log::{Bounds, Page};

/// This metad's log.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: u32,
    log: Mutex<Log>,
    /// Tells actions of one millisecond apart.
    next: AtomicU64,
    refusals: Mutex<Budget>,
}

/// Who asks, as far as that is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Who {
    pub(crate) user: String,
    pub(crate) uid: u32,
    pub(crate) token: u64,
    pub(crate) role: String,
    /// `host:port`; empty: unknown.
    pub(crate) address: String,
}

/// What became of an action.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome<'a> {
    Done,
    /// Nobody knows whether it happens.
    Unknown(&'a str),
    Failed(&'a str),
}

impl Audit {
    /// Opens the log below the metad's folder, or begins one.
    pub(crate) fn open(data_dir: &Path, node: u32) -> io::Result<Self> {
        let log = Mutex::new(Log::open(data_dir.join("audit"), limits::AUDIT)?);
        let refusals = Mutex::new(Budget::new(Instant::now()));
        let shared = Shared { node, log, next: AtomicU64::new(0), refusals };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn node(&self) -> u32 {
        self.shared.node
    }

    /// An action is about to begin: on the disk when this returns. Answers its id.
    pub(crate) async fn begin(&self, who: &Who, call: &str, args: Value) -> io::Result<String> {
        let at_ms = wall_ms();
        let id = format!("{}-{at_ms}-{}", self.shared.node, self.shared.next.fetch_add(1, Relaxed));
        let mut line = self.line(who, call, at_ms);
        line["id"] = id.clone().into();
        line["arguments"] = args;
        line["outcome"] = "begun".into();
        self.append(line).await?;
        Ok(id)
    }

    /// What became of it: on the disk when this returns.
    pub(crate) async fn end(&self, id: &str, outcome: Outcome<'_>) -> io::Result<()> {
        let (word, why) = match outcome {
            Outcome::Done => ("done", ""),
            Outcome::Unknown(why) => ("unknown", why),
            Outcome::Failed(why) => ("failed", why),
        };
        let mut line = json!({
            "at_ms": wall_ms(), "node": self.shared.node, "id": id, "outcome": word,
        });
        if !why.is_empty() {
            line["why"] = why.into();
        }
        self.append(line).await
    }

    /// Somebody was refused. The answer does not wait for the disk.
    pub(crate) fn refused(&self, who: &Who, call: &str, why: &str) {
        let Some(left_out) = self.shared.refusals.lock().take(Instant::now()) else { return };
        let mut line = self.line(who, call, wall_ms());
        line["outcome"] = "refused".into();
        line["why"] = why.into();
        if left_out > 0 {
            line["refusals_left_out"] = left_out.into();
        }
        let audit = self.clone();
        tokio::spawn(async move {
            if let Err(error) = audit.append(line).await {
                tracing::error!(%error, "a refusal is not in the audit log");
            }
        });
    }

    /// Lines from a place on, no more than one answer carries.
    pub(crate) async fn read(&self, file: u64, offset: u64) -> io::Result<Page> {
        let folder = self.shared.log.lock().folder().to_owned();
        let read = move || log::read(&folder, file, offset, limits::AUDIT_PAGE_BYTES);
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    fn line(&self, who: &Who, call: &str, at_ms: u64) -> Value {
        json!({
            "at_ms": at_ms, "node": self.shared.node, "user": who.user, "uid": who.uid,
            "token": who.token, "role": who.role, "address": who.address, "call": call,
        })
    }

    async fn append(&self, line: Value) -> io::Result<()> {
        let shared = self.shared.clone();
        let append = move || shared.log.lock().append(&line.to_string());
        tokio::task::spawn_blocking(append).await.map_err(io::Error::other)?
    }
}

/// Whether a line was recorded at or after this time, milliseconds since 1970. One that cannot be read was.
pub(crate) fn is_since(line: &str, since_ms: u64) -> bool {
    let at_ms = serde_json::from_str::<Value>(line).ok().and_then(|line| line["at_ms"].as_u64());
    since_ms == 0 || at_ms.is_none_or(|at_ms| at_ms >= since_ms)
}

/// How many refusals may be recorded: a burst, and then some in each minute.
#[derive(Debug)]
struct Budget {
    left: u64,
    filled: Instant,
    left_out: u64,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: limits::AUDIT_REFUSALS_BURST, filled: now, left_out: 0 }
    }

    /// How many were left out before this one; `None`: this one is too.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let earned = now.duration_since(self.filled).as_secs() / limits::AUDIT_REFUSAL_S;
        if earned > 0 {
            self.left = (self.left + earned).min(limits::AUDIT_REFUSALS_BURST);
            self.filled = now;
        }
        if self.left == 0 {
            self.left_out += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_action_is_recorded_before_it_begins_and_before_it_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), 3).unwrap();
        let who = Who { user: "ann".into(), uid: 7, token: 9, ..Who::default() };
        let id = audit.begin(&who, "set_draining", json!({ "node": 101 })).await.unwrap();
        let lines = audit.read(0, 0).await.unwrap().lines;
        let begun: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((&begun["outcome"], &begun["user"]), (&json!("begun"), &json!("ann")));
        assert_eq!(begun["arguments"]["node"], 101);
        audit.end(&id, Outcome::Failed("no such node")).await.unwrap();
        let page = audit.read(0, 0).await.unwrap();
        let ended: Value = serde_json::from_str(&page.lines[1]).unwrap();
        assert_eq!((&ended["id"], &ended["why"]), (&begun["id"], &json!("no such node")));
        assert!(audit.read(page.file, page.offset).await.unwrap().lines.is_empty());
    }

    #[test]
    fn refusals_cannot_push_actions_out() {
        let begun = Instant::now();
        let mut budget = Budget::new(begun);
        let recorded = (0..10_000).filter(|_| budget.take(begun).is_some()).count() as u64;
        assert_eq!(recorded, limits::AUDIT_REFUSALS_BURST);
        let later = begun + Duration::from_secs(limits::AUDIT_REFUSAL_S);
        assert_eq!(budget.take(later), Some(10_000 - recorded), "and it is told how many");
        assert_eq!(budget.take(later), None);
    }
}
