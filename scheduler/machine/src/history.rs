//! What ran where, and how jobs ended: for people who ask later.

use std::collections::{BTreeMap, VecDeque};

use ff2_sched_core::{Cause, Decision, Event, Job, JobId, Outcome};
use ff2_topology::NodeId;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Follows from the commands as all else does, so replicas have the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Runs that are under way, by job.
    open: BTreeMap<JobId, Run>,
    /// Oldest end first.
    runs: VecDeque<Run>,
    ended: VecDeque<EndedJob>,
    /// What people changed of jobs, oldest first.
    #[serde(default)]
    changes: VecDeque<Change>,
}

/// Somebody changed something of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub at_ms: u64,
    pub who: String,
    pub what: Act,
    /// Or the first of several.
    pub job: JobId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    Cancelled,
    Suspended,
    Resumed,
    Requeued,
    Scaled,
}

impl Act {
    fn of(event: &Event) -> Option<(Self, JobId)> {
        match event {
            Event::Cancel(job) => Some((Self::Cancelled, *job)),
            Event::Suspend(job) => Some((Self::Suspended, *job)),
            Event::Resume(job) => Some((Self::Resumed, *job)),
            Event::Requeue(job) => Some((Self::Requeued, *job)),
            Event::Scale { service, .. } => Some((Self::Scaled, *service)),
            _ => None,
        }
    }
}

/// One attempt of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub job: JobId,
    pub name: String,
    pub user: String,
    pub attempt: u32,
    /// In the order of its ranks.
    pub nodes: Vec<NodeId>,
    pub gpus: u64,
    pub from_ms: u64,
    /// Why it was told to stop, if it was: the first reason.
    pub cause: Option<Cause>,
    /// When and how it ended.
    pub end: Option<(u64, How)>,
    pub note: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    Succeeded,
    Failed,
    /// It was cut off.
    Lost,
    /// It was told to stop, and did.
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedJob {
    pub last: Job,
    pub outcome: Outcome,
    pub at_ms: u64,
    /// Of its last run.
    pub note: String,
}

impl History {
    /// What comes of a step: the event first, since a job may be started again by what ended its run.
    pub(crate) fn take(
        &mut self,
        now_ms: u64,
        event: &Event,
        note: &str,
        decisions: &[Decision],
        job: impl Fn(JobId) -> Option<(String, String, u64)>,
    ) {
        if let Some((what, job)) = Act::of(event).filter(|_| !note.is_empty()) {
            let who = note.chars().take(limits::NOTE_BYTES_MAX).collect();
            self.changes.push_back(Change { at_ms: now_ms, who, what, job });
            if self.changes.len() > limits::CHANGES_KEPT {
                self.changes.pop_front();
            }
        }
        let mut last_note = "";
        match event {
            Event::Exited { job, attempt, succeeded: true } => {
                self.close(*job, *attempt, now_ms, How::Succeeded, note);
            }
            Event::Exited { job, attempt, succeeded: false } => {
                self.close(*job, *attempt, now_ms, How::Failed, note);
                last_note = note;
            }
            Event::Lost { job, attempt } => self.close(*job, *attempt, now_ms, How::Lost, note),
            Event::Stopped { job, attempt } => {
                self.close(*job, *attempt, now_ms, How::Stopped, note);
            }
            _ => {}
        }
        for decision in decisions {
            match decision {
                Decision::Place { job: id, attempt, placement, .. } => {
                    let (name, user, gpus) = job(*id).unwrap_or_default();
                    let run = Run {
                        job: *id,
                        name,
                        user,
                        attempt: *attempt,
                        nodes: placement.nodes().collect(),
                        gpus,
                        from_ms: now_ms,
                        cause: None,
                        end: None,
                        note: String::new(),
                    };
                    self.open.insert(*id, run);
                }
                Decision::Suspend { job, cause, .. } | Decision::Kill { job, cause, .. } => {
                    if let Some(run) = self.open.get_mut(job) {
                        run.cause.get_or_insert(*cause);
                    }
                }
                Decision::Ended { outcome, last, .. } => {
                    let note = if *outcome == Outcome::Failed { last_note } else { "" };
                    let (last, note) = (Job::clone(last), note.into());
                    self.ended.push_back(EndedJob { last, outcome: *outcome, at_ms: now_ms, note });
                    if self.ended.len() > limits::ENDED_KEPT {
                        self.ended.pop_front();
                    }
                }
                Decision::Accepted { .. } | Decision::Refused(_) => {}
            }
        }
    }

    fn close(&mut self, job: JobId, attempt: u32, now_ms: u64, how: How, note: &str) {
        let is_it = self.open.get(&job).is_some_and(|run| {
            run.attempt == attempt && (how != How::Stopped || run.cause.is_some())
        });
        if !is_it {
            return;
        }
        let Some(mut run) = self.open.remove(&job) else { return };
        run.end = Some((now_ms, how));
        run.note = note.chars().take(limits::NOTE_BYTES_MAX).collect();
        self.runs.push_back(run);
        if self.runs.len() > limits::RUNS_KEPT {
            self.runs.pop_front();
        }
    }

    /// Newest first; those that are under way before those that are over.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.open.values().rev().chain(self.runs.iter().rev())
    }

    /// Of one job, newest first.
    pub fn runs_of(&self, job: JobId) -> impl Iterator<Item = &Run> {
        self.runs().filter(move |run| run.job == job)
    }

    /// Newest first.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().rev()
    }

    /// Who cancelled a job, or all of its submission.
    pub fn cancelled_by(&self, job: &Job) -> Option<&str> {
        let first = job.member.map_or(job.id, |member| member.first);
        let mut changes = self.changes();
        let found = changes.find(|change| {
            change.what == Act::Cancelled && (change.job == job.id || change.job == first)
        });
        found.map(|change| change.who.as_str())
    }

    /// Newest first.
    pub fn ended(&self) -> impl Iterator<Item = &EndedJob> {
        self.ended.iter().rev()
    }
}
