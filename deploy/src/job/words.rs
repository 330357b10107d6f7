//! Times, costs and jobs as people read them.

use ff2_proto::pb;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Of so many milliseconds: `3 d 4 h`, `12 min`, `5 s`.
pub(super) fn span(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min", s / 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// Of a Unix time in milliseconds, to the second.
pub(super) fn at(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    let at = OffsetDateTime::from_unix_timestamp(seconds);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "-".to_owned())
}

pub(super) fn gpu_hours(gpu_ms: u64) -> String {
    format!("{:.1}", gpu_ms as f64 / 3.6e6)
}

/// Normal GPU-hours.
pub(super) fn cost(milli: u64) -> String {
    format!("{:.1}", milli as f64 / 1e3)
}

pub(super) fn nodes(names: &[String]) -> String {
    match names {
        [] => "-".into(),
        [one] => one.clone(),
        [first, .., last] if names.len() > 3 => format!("{first}..{last} ({})", names.len()),
        names => names.join(","),
    }
}

/// GPUs of all tasks.
pub(crate) fn gpus(job: &pb::JobInfo) -> u64 {
    match job.gpus_all {
        // A scheduler of an earlier release does not say.
        0 => u64::from(job.tasks) * u64::from(job.gpus),
        all => all,
    }
}

pub(super) fn job(job: &pb::JobInfo) -> Value {
    let time = |ms: u64| if ms == 0 { Value::Null } else { ms.into() };
    let array = (job.array_first != 0)
        .then(|| json!({ "first": job.array_first, "member": job.array_index }));
    json!({
        "job": job.job, "name": job.name, "user": job.user, "group": job.group, "priority": job.priority,
        "state": job.state, "on_hold": job.on_hold, "attempt": job.attempt, "tasks": job.tasks,
        "gpus_per_task": job.gpus, "cpus_per_task": job.cpus, "gpus": gpus(job), "exclusive": job.exclusive,
        "nodes": job.nodes, "array": array,
        "submitted_ms": job.submitted_ms, "started_ms": time(job.started_ms), "ended_ms": time(job.ended_ms),
        "starts_by_ms": time(job.starts_by_ms), "ran_ms": job.ran_ms, "gpu_hours": job.gpu_ms as f64 / 3.6e6,
        "cost": job.cost_milli as f64 / 1e3, "preemptions": job.preemptions, "moves": job.moves, "why": job.why,
    })
}

pub(super) fn run(run: &pb::JobRun) -> Value {
    json!({
        "job": run.job, "attempt": run.attempt, "nodes": run.nodes, "gpus": run.gpus, "from_ms": run.from_ms,
        "to_ms": (run.to_ms != 0).then_some(run.to_ms), "end": run.end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_parts_at_most() {
        let table = [
            (999, "0 s"),
            (59_000, "59 s"),
            (61_000, "1 min"),
            (3_700_000, "1 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ];
        for (ms, text) in table {
            assert_eq!(span(ms), text);
        }
        assert_eq!(at(1_500), "1970-01-01T00:00:01Z");
    }

    #[test]
    fn many_nodes_are_cut() {
        let names = |count: usize| (0..count).map(|n| format!("n{n}")).collect::<Vec<_>>();
        assert_eq!(nodes(&[]), "-");
        assert_eq!(nodes(&names(1)), "n0");
        assert_eq!(nodes(&names(3)), "n0,n1,n2");
        assert_eq!(nodes(&names(9)), "n0..n8 (9)");
    }
}
