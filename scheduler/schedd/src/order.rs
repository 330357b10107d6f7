//! What the scheduler's core is told of a request, and what is kept of it for the agents.

use std::collections::BTreeMap;

use ff2_sched_core::{Checkpoint, Dependency, JobId, JobSpec, Many, Priority, Resources};
use ff2_submit::{Dependency as After, JobRequest, Layout, Memory, Order, Submitter};

use crate::limits;

/// What nodes have, of which jobs are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeSize {
    pub(crate) gpus: u32,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
}

/// Grace of a job that says nothing.
const GRACE_S: u64 = 30;

/// # Errors
/// What contradicts itself in the request, or is not known here, in words for its submitter.
pub(crate) fn read(
    request: JobRequest,
    submitter: Submitter,
    node: NodeSize,
) -> Result<(JobSpec, Order), String> {
    let layout = request.layout(node.gpus).map_err(|error| error.to_string())?;
    if let Some(kind) = &layout.gpu_kind {
        return Err(format!("there are no kinds of GPUs here, so none is {kind:?}: leave it out"));
    }
    if request.command.is_empty() && request.script.is_none() {
        return Err("a job needs a script or a command".into());
    }
    let grace_s = request.grace().map_or(GRACE_S, |grace| u64::from(grace.seconds()));
    let indexes = request.array.as_ref().map(ff2_submit::Array::expand).unwrap_or_default();
    let spec = JobSpec {
        name: name(&request),
        user: submitter.name.clone(),
        group: request.group.clone().unwrap_or_else(|| submitter.name.clone()),
        priority: priority(request.priority),
        tasks: layout.nodes,
        task: resources(&request, &layout, node),
        limit_ms: request.time_limit.map(|limit| limit.seconds() * 1_000),
        grace_ms: grace_s * 1_000,
        min_run_ms: 0,
        preemptible: request.requeue != Some(false),
        restarts: if request.requeue == Some(true) { limits::RESTARTS } else { 0 },
        after: after(&request)?,
        many: many(&request, indexes.len()),
        inputs: request.data.clone(),
        checkpoint: request.checkpoint.map(checkpoint),
        ..JobSpec::default()
    };
    let order = Order {
        ranks: layout.ranks,
        ranks_per_task: layout.ranks_per_node,
        grace_s,
        indexes,
        environment: BTreeMap::new(),
        submitter,
        request,
    };
    Ok((spec, order))
}

fn name(request: &JobRequest) -> String {
    let of_command = || {
        let program = request.command.first()?;
        Some(program.rsplit('/').next().unwrap_or(program).to_owned())
    };
    request.name.clone().or_else(of_command).unwrap_or_else(|| "job".into())
}

fn priority(said: Option<ff2_submit::Priority>) -> Priority {
    use ff2_submit::Priority as Said;
    match said {
        Some(Said::Idle) => Priority::Idle,
        Some(Said::UnderNormal) => Priority::UnderNormal,
        None | Some(Said::Normal) => Priority::Normal,
        Some(Said::AboveNormal) => Priority::AboveNormal,
        Some(Said::High) => Priority::High,
        Some(Said::VeryHigh) => Priority::VeryHigh,
        Some(Said::Extreme) => Priority::Extreme,
    }
}

fn resources(request: &JobRequest, layout: &Layout, node: NodeSize) -> Resources {
    if request.exclusive == Some(true) {
        return Resources { gpus: node.gpus, cpus: node.cpus, memory: node.memory_mib };
    }
    // A task without GPUs must have something that is counted.
    let least = u32::from(layout.gpus_per_node == 0);
    let memory = match request.memory_per_node {
        None => 0,
        Some(Memory::All) => node.memory_mib,
        Some(Memory::Mib(mib)) => mib,
    };
    Resources { gpus: layout.gpus_per_node, cpus: layout.cpus_per_node.max(least), memory }
}

fn checkpoint(said: ff2_submit::Checkpoint) -> Checkpoint {
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let usual = Checkpoint::default();
    Checkpoint {
        interval_ms: ms(said.interval()),
        bytes: said.bytes_of_node().unwrap_or(usual.bytes),
        step_ms: said.step().map_or(usual.step_ms, ms),
    }
}

fn after(request: &JobRequest) -> Result<Vec<Dependency>, String> {
    let Some(dependencies) = &request.dependency else { return Ok(Vec::new()) };
    if dependencies.any() && dependencies.list().len() > 1 {
        return Err("a job comes after all that it names: write , for ?".into());
    }
    let one = |after: &After| {
        let (job, must_succeed) = match after {
            After::AfterOk(job) => (job, true),
            After::AfterAny(job) => (job, false),
            After::After { .. } | After::AfterNotOk(_) | After::Singleton => {
                return Err("only afterok and afterany are known here".to_owned());
            }
        };
        if job.index.is_some() {
            return Err("name a job of an array by its own number".into());
        }
        Ok(Dependency { job: JobId(job.job), must_succeed })
    };
    dependencies.list().iter().map(one).collect()
}

fn many(request: &JobRequest, indexes: usize) -> Many {
    if let Some(array) = &request.array {
        let at_once = array.at_once().map_or(0, u32::from);
        return Many::Array { count: u32::try_from(indexes).unwrap_or(u32::MAX), at_once };
    }
    match request.replicas() {
        Some((min, max)) => Many::Service { min: min.into(), max: max.into() },
        None => Many::One,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn of(options: &str) -> Result<(JobSpec, Order), String> {
        let mut request = JobRequest { script: Some("#!/bin/sh\n".into()), ..Default::default() };
        let words: Vec<&str> = options.split_whitespace().collect();
        ff2_submit::apply_arguments(&mut request, &words).unwrap();
        let who = Submitter { name: "ann".into(), uid: 1, gid: 1 };
        read(request, who, NodeSize { gpus: 8, cpus: 64, memory_mib: 1 << 19 })
    }

    #[test]
    fn what_people_say_becomes_what_the_core_knows() {
        let (spec, order) =
            of("-N 2 --ntasks-per-node=4 --gpus-per-node=8 -t 1:00:00 -J x --requeue").unwrap();
        assert_eq!((spec.tasks, spec.task.gpus, spec.limit_ms), (2, 8, Some(3_600_000)));
        assert_eq!((order.ranks, order.ranks_per_task, spec.restarts), (8, 4, limits::RESTARTS));
        assert_eq!((spec.name.as_str(), spec.group.as_str()), ("x", "ann"));
        let (spec, _) = of("-n 1").unwrap();
        assert_eq!((spec.task.gpus, spec.task.cpus), (0, 1));
        let (spec, order) = of("--array=1-7:3%2 -d afterok:5").unwrap();
        assert_eq!(spec.many, Many::Array { count: 3, at_once: 2 });
        assert_eq!(order.indexes, [1, 4, 7]);
        assert_eq!(spec.after, [Dependency { job: JobId(5), must_succeed: true }]);
        let (spec, _) = of("--checkpoint=5,40G,12s").unwrap();
        let checkpoint = Checkpoint { interval_ms: 300_000, bytes: 40 << 30, step_ms: 12_000 };
        assert_eq!(spec.checkpoint, Some(checkpoint));
        let (spec, _) = of("-N 1 --exclusive").unwrap();
        assert_eq!(spec.task, Resources { gpus: 8, cpus: 64, memory: 1 << 19 });
    }

    #[test]
    fn what_is_not_known_here_is_said() {
        assert!(of("-d singleton -J a").unwrap_err().contains("afterok"));
        assert!(of("--gres=gpu:h100:2").unwrap_err().contains("h100"));
    }
}
