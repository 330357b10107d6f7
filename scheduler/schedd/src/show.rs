//! Jobs, runs and nodes in the words of the interface for people.

use ff2_proto::pb;
use ff2_sched_core::{
    Cause, Job, JobId, NodeState, Outcome, Priority, State as Of, Why, cost_milli,
};
use ff2_sched_machine::{EndedJob, How, Run, State};
use ff2_topology::NodeId;
use serde::Serialize;

use crate::leader::wall_ms;

/// A word as it is in JSON: `above-normal`.
pub(crate) fn word(of: impl Serialize) -> String {
    let value = serde_json::to_value(of).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn priority(word: &str) -> Option<Priority> {
    serde_json::from_value(word.into()).ok()
}

pub(crate) fn node_state(word: &str) -> Option<NodeState> {
    serde_json::from_value(word.into()).ok()
}

/// What is told of a job that has not ended, beside what costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Explain {
    Nothing,
    Why,
    /// And when it starts at the latest.
    When,
}

pub(crate) fn job(state: &State, job: &Job, explain: Explain) -> pb::JobInfo {
    let now = wall_ms().max(state.scheduler().now_ms());
    let is_waiting = matches!(job.state, Of::Held | Of::Pending | Of::Claiming);
    let why = if explain >= Explain::Why { why(state, job) } else { String::new() };
    let starts_by = if explain == Explain::When && is_waiting {
        state.scheduler().starts_by(job.id)
    } else {
        None
    };
    pb::JobInfo {
        state: match &job.state {
            Of::Held => "held",
            Of::Pending => "pending",
            Of::Claiming => "claiming",
            Of::Running { .. } => "running",
            Of::Stopping { .. } => "stopping",
        }
        .into(),
        started_ms: job.started_ms().unwrap_or(0),
        nodes: job.placement().into_iter().flat_map(|p| names(state, p.nodes())).collect(),
        why,
        starts_by_ms: starts_by.unwrap_or(0),
        ..of(job, now)
    }
}

pub(crate) fn ended(state: &State, ended: &EndedJob) -> pb::JobInfo {
    let why = match ended.outcome {
        Outcome::Cancelled => match state.history().cancelled_by(&ended.last) {
            Some(who) => format!("by {who}"),
            None => String::new(),
        },
        Outcome::DependencyFailed => {
            "a job that it had to come after did not end as it had to".to_owned()
        }
        _ => ended.note.clone(),
    };
    let state = word(ended.outcome);
    pb::JobInfo { state, ended_ms: ended.at_ms, why, ..of(&ended.last, ended.at_ms) }
}

fn of(job: &Job, now: u64) -> pb::JobInfo {
    let gpu_ms = job.service(now);
    pb::JobInfo {
        job: job.id.0,
        name: job.spec.name.clone(),
        user: job.spec.user.clone(),
        group: job.spec.group.clone(),
        priority: word(job.spec.priority),
        attempt: job.attempt,
        tasks: job.spec.tasks,
        gpus: job.spec.task.gpus,
        cpus: job.spec.task.cpus,
        exclusive: job.spec.exclusive,
        gpus_all: job.gpus(),
        submitted_ms: job.submitted_ms,
        ran_ms: job.run_ms(now),
        gpu_ms,
        cost_milli: cost_milli(gpu_ms, job.spec.priority),
        array_first: job.member.map_or(0, |member| member.first.0),
        array_index: job.member.map_or(0, |member| member.index),
        preemptions: job.preemptions,
        moves: job.moves,
        on_hold: job.on_hold,
        ..Default::default()
    }
}

pub(crate) fn names(
    state: &State,
    nodes: impl Iterator<Item = NodeId>,
) -> impl Iterator<Item = String> {
    nodes.map(|node| state.name(node).to_owned())
}

pub(crate) fn run(state: &State, run: &Run) -> pb::JobRun {
    let cause = || run.cause.map(|cause| self::cause(state, cause)).unwrap_or_default();
    let note = || if run.note.is_empty() { String::new() } else { format!(": {}", run.note) };
    let end = match run.end {
        None => cause(),
        Some((_, How::Succeeded)) => "succeeded".into(),
        Some((_, How::Failed)) => format!("failed{}", note()),
        Some((_, How::Lost)) => format!("cut off{}", note()),
        Some((_, How::Stopped)) => cause(),
    };
    pb::JobRun {
        job: run.job.0,
        name: run.name.clone(),
        user: run.user.clone(),
        attempt: run.attempt,
        nodes: names(state, run.nodes.iter().copied()).collect(),
        gpus: run.gpus,
        from_ms: run.from_ms,
        to_ms: run.end.map_or(0, |(at, _)| at),
        end,
    }
}

/// Why a run was told to stop.
fn cause(state: &State, cause: Cause) -> String {
    match cause {
        Cause::Preempted { by } => format!("made room for job {}", by.0),
        Cause::Moved { to_start, gpus } => {
            format!("moved, so that job {} with {gpus} GPUs starts", to_start.0)
        }
        Cause::Drained { node } => format!("node {} was drained", state.name(node)),
        Cause::NodeFailed { node } => format!("node {} failed", state.name(node)),
        Cause::Cancelled => "cancelled".into(),
        Cause::Asked => "suspended by hand".into(),
        Cause::Overdue => "its time limit passed".into(),
        Cause::GracePassed => "did not make room within its grace".into(),
    }
}

/// Why a job does not run, or what it is told while it stops.
fn why(state: &State, job: &Job) -> String {
    if let Of::Stopping { cause, .. } = job.state {
        return self::cause(state, cause);
    }
    let scheduler = state.scheduler();
    let jobs = |jobs: &[JobId]| {
        let named: Vec<String> = jobs.iter().take(8).map(|job| job.0.to_string()).collect();
        let more = jobs.len().saturating_sub(named.len());
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{rest}", named.join(", "))
    };
    match scheduler.why(job.id) {
        Why::NoSuchJob | Why::HasNodes => String::new(),
        Why::OnHold => {
            format!("on hold: `ff2ctl job resume {}` lets it go", job.id.0)
        }
        Why::Dependencies { jobs: before } => format!("comes after job {}", jobs(&before)),
        Why::NotBefore { at_ms } => {
            let minutes = at_ms.saturating_sub(scheduler.now_ms()).div_ceil(60_000);
            format!("what it comes after began, but not long enough ago: for {minutes} min more")
        }
        Why::Singleton { after } => {
            format!("comes after all earlier jobs of its name, of which {} has not ended", after.0)
        }
        Why::ArrayIsFull { at_once } => {
            format!("{at_once} of its array are in the queue or run already")
        }
        Why::Quota { key, allowance, gpus } => format!(
            "quota: {} may have {} GPUs at once and {} {}; this job needs {gpus}",
            key,
            allowance.limit,
            allowance.used,
            if allowance.used == 1 { "is used" } else { "are used" },
        ),
        Why::Stopping { jobs: others } => {
            format!("its nodes are chosen; job {} still stops there", jobs(&others))
        }
        Why::Behind { jobs } => format!("{jobs} jobs go first"),
        Why::TooFewFree { gpus, free } => format!("needs {gpus} GPUs, {free} are free"),
        Why::Fragmented { gpus, free, tasks, fit } => format!(
            "fragmentation: {free} GPUs are free and it needs {gpus}, but the largest gang of its kind that fits now \
             has {fit} of its {tasks} nodes"
        ),
        Why::AcrossZones { tasks, fit } => format!(
            "it fits in two zones only ({fit} of its {tasks} nodes in one), and another job lies in both already"
        ),
        Why::Fits => "starts now".into(),
    }
}
