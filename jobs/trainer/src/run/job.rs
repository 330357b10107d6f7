//! The scheduler's side of a run (docs/JOBS.md): when to save, when to make room, how to say that all is saved. Without
//! a scheduler a run is asked to end by SIGINT or SIGTERM, and saves likewise.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use ff2_task::CheckpointSlot;
use tokio::signal::unix::{SignalKind, signal};

use crate::{config::RunConfig, watch::Record};

/// Why a run is to end before its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// The scheduler wants room for another job.
    Suspend,
    /// The number of a signal.
    Signal(u8),
}

impl Request {
    /// As ranks tell each other; 0 is none.
    pub(crate) fn word(self) -> u32 {
        match self {
            Self::Suspend => 1,
            Self::Signal(number) => 2 + u32::from(number),
        }
    }

    pub(crate) fn of_word(word: u32) -> Option<Self> {
        match word {
            0 => None,
            1 => Some(Self::Suspend),
            signal => Some(Self::Signal(u8::try_from(signal - 2).unwrap_or(u8::MAX))),
        }
    }

    /// How a process ends that did as it was asked.
    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Self::Suspend => ExitCode::SUCCESS,
            // As a shell tells it of a program that died of the signal.
            Self::Signal(number) => ExitCode::from(128 + number),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Job {
    suspend: Option<PathBuf>,
    acknowledgement: Option<PathBuf>,
    slot: Option<PathBuf>,
    state: Option<PathBuf>,
    checkpoint: Option<PathBuf>,
    /// The signal that came, or 0.
    signalled: Arc<AtomicU8>,
    /// When it was last looked whether the slot begins, in ms of the Unix clock.
    looked_ms: u64,
}

impl Job {
    /// # Errors
    /// Signals that cannot be caught.
    pub(crate) fn from_environment() -> Result<Self> {
        let path = |name| env::var_os(name).map(PathBuf::from);
        let signalled = Arc::new(AtomicU8::new(0));
        catch_signals(Arc::clone(&signalled))?;
        Ok(Self {
            suspend: path("FF2_SUSPEND"),
            acknowledgement: path("FF2_ACK"),
            slot: path("FF2_SLOT"),
            state: path("FF2_STATE"),
            checkpoint: path("FF2_CHECKPOINT"),
            signalled,
            looked_ms: now_ms(),
        })
    }

    pub(crate) fn checkpoint_folder(&self, config: &RunConfig) -> PathBuf {
        let folder = &config.checkpoint.folder;
        if *folder != Path::new("") {
            return folder.clone();
        }
        self.checkpoint.clone().unwrap_or_else(|| super::default_checkpoints(&config.out))
    }

    pub(crate) fn request(&self) -> Option<Request> {
        if self.suspend.as_ref().is_some_and(|path| path.exists()) {
            return Some(Request::Suspend);
        }
        match self.signalled.load(Ordering::Relaxed) {
            0 => None,
            number => Some(Request::Signal(number)),
        }
    }

    /// Whether a checkpoint is due: once a slot if the job has one, else `by_steps`. Ask after each step.
    pub(crate) fn is_save_due(&mut self, by_steps: bool) -> bool {
        let (now, since) = (now_ms(), self.looked_ms);
        self.looked_ms = now;
        self.slot().map_or(by_steps, |slot| begins(&slot, since, now))
    }

    /// Bytes a second that a save may write; None: no limit.
    pub(crate) fn rate(&self) -> Option<u64> {
        self.slot().map(|slot| slot.bytes_per_s)
    }

    /// Bytes a second that the save before making room may write, by the request for that; None: no limit.
    pub(crate) fn last_rate(&self) -> Option<u64> {
        let asked = fs::read_to_string(self.suspend.as_ref()?).ok()?;
        asked.lines().nth(1)?.trim().parse().ok()
    }

    /// It may come and change while the job runs.
    fn slot(&self) -> Option<CheckpointSlot> {
        fs::read_to_string(self.slot.as_ref()?).ok()?.parse().ok()
    }

    /// Leaves a word on how far the run is: people see it with the job, and it survives suspensions.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn remember(&self, step: u64, records: &[Record]) -> Result<()> {
        let Some(path) = &self.state else { return Ok(()) };
        let loss = records.last().and_then(|record| record.loss);
        let word = format!("step {step}, loss {:.4}\n", loss.unwrap_or(f64::NAN));
        fs::write(path, word).with_context(|| format!("write {}", path.display()))
    }

    /// Says that all is saved.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn acknowledge(&self, request: Request) -> Result<()> {
        if let (Request::Suspend, Some(path)) = (request, &self.acknowledgement) {
            fs::write(path, "").with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Whether one of the slot's moments lies behind `since` and not behind `now`, all in ms.
fn begins(slot: &CheckpointSlot, since: u64, now: u64) -> bool {
    let passed = |at: u64| (at + slot.every_ms - slot.phase_ms % slot.every_ms) / slot.every_ms;
    passed(now) > passed(since)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A second signal ends the process at once.
fn catch_signals(signalled: Arc<AtomicU8>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime for signals")?;
    let wait = move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            loop {
                let number = tokio::select! {
                    _ = interrupt.recv() => 2,
                    _ = terminate.recv() => 15,
                };
                if signalled.swap(number, Ordering::Relaxed) != 0 {
                    std::process::exit(128 + i32::from(number));
                }
            }
        });
    };
    thread::Builder::new().name("signals".into()).spawn(wait).context("start a thread")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_through_as_words() {
        for request in [None, Some(Request::Suspend), Some(Request::Signal(15))] {
            assert_eq!(Request::of_word(request.map_or(0, Request::word)), request);
        }
    }

    #[test]
    fn a_request_may_say_how_fast_the_last_save_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("suspend-1");
        let job = Job {
            suspend: Some(path.clone()),
            acknowledgement: None,
            slot: None,
            state: None,
            checkpoint: None,
            signalled: Arc::default(),
            looked_ms: 0,
        };
        assert_eq!(job.last_rate(), None);
        fs::write(&path, "1700000000\n").unwrap();
        assert_eq!((job.request(), job.last_rate()), (Some(Request::Suspend), None));
        fs::write(&path, "1700000000\n5000000\n").unwrap();
        assert_eq!(job.last_rate(), Some(5_000_000));
    }

    #[test]
    fn a_slot_begins_once_in_each_interval() {
        let slot = CheckpointSlot { every_ms: 1000, phase_ms: 300, length_ms: 100, bytes_per_s: 1 };
        assert!(begins(&slot, 1299, 1300) && begins(&slot, 250, 1250));
        assert!(!begins(&slot, 1300, 2299) && !begins(&slot, 1300, 1300));
        let late = CheckpointSlot { phase_ms: 2300, ..slot };
        let count = |slot| (0..10_000).step_by(7).filter(|t| begins(slot, *t, t + 7)).count();
        assert_eq!((count(&slot), count(&late)), (10, 10));
    }
}
