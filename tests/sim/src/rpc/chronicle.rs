//! What happened in a run, as a hash of all of it, and what went wrong.

use std::{fmt, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// Everybody writes it.
pub(super) struct Chronicle {
    began: Instant,
    state: Mutex<State>,
}

struct State {
    hash: Xxh3,
    events: u64,
    log: Vec<String>,
    problems: Vec<String>,
}

/// What is left of it at the end.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) hash: u64,
    pub(super) events: u64,
    pub(super) log: Vec<String>,
    pub(super) problems: Vec<String>,
}

impl Chronicle {
    pub(super) fn new() -> Self {
        let state = State { hash: Xxh3::new(), events: 0, log: Vec::new(), problems: Vec::new() };
        Self { began: Instant::now(), state: Mutex::new(state) }
    }

    /// Time since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Something that a run of the same seed does at the same moment, after the same things.
    pub(super) fn note(&self, what: &str, numbers: &[u64]) {
        let now = self.now();
        let mut state = self.state.lock();
        state.events += 1;
        state.hash.update(what.as_bytes());
        state.hash.update(&u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
        for number in numbers {
            state.hash.update(&number.to_le_bytes());
        }
    }

    /// A fault, or what the cluster made of it: to be shown when the run fails.
    pub(super) fn log(&self, line: impl Into<String>) {
        let line = format!("{:9.3} {}", self.now().as_secs_f64(), line.into());
        self.note(&line, &[]);
        self.state.lock().log.push(line);
    }

    pub(super) fn problem(&self, problem: impl Into<String>) {
        let problem = format!("at {:.3} s: {}", self.now().as_secs_f64(), problem.into());
        self.state.lock().problems.push(problem);
    }

    pub(super) fn summary(&self) -> Summary {
        let state = self.state.lock();
        Summary {
            hash: state.hash.digest(),
            events: state.events,
            log: state.log.clone(),
            problems: state.problems.clone(),
        }
    }
}

impl fmt::Debug for Chronicle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chronicle").field("now", &self.now()).finish_non_exhaustive()
    }
}
