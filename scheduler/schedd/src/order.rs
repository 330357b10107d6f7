//! What the scheduler's core is told of a request, and what is kept of it for the agents.

use std::collections::BTreeMap;

use ff2_daemon::config::PartitionConfig;
use ff2_sched_core::{
    After, Checkpoint, Dependency, JobId, JobSpec, Many, Must, Priority, Resources,
};
use ff2_submit::{Dependency as Said, JobRef, JobRequest, Layout, Memory, Order, Submitter};

use crate::{
    limits,
    partition::{self, Asked},
};

/// What jobs are laid out by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClusterSize<'a> {
    /// Of the node that has most: GPUs of a job that says no nodes are taken of as few as can be.
    pub(crate) gpus: u32,
    /// Of the node that has least: what "all of its memory" is on any.
    pub(crate) memory_mib: u32,
    /// That nodes have.
    pub(crate) tags: &'a [String],
    pub(crate) partitions: &'a [PartitionConfig],
}

/// Grace of a job that says nothing, in seconds.
const GRACE_S: u64 = 30;

/// And the longest that anybody has. One that says how often it saves has as long as that to make room, so that those
/// who do so together write no faster than they did before.
const GRACE_S_MAX: u64 = 300;

/// `array` tells the indexes of an array that has been submitted, by its number.
///
/// # Errors
/// What contradicts itself in the request, or is not known here, in words for its submitter.
pub(crate) fn read(
    request: JobRequest,
    submitter: Submitter,
    cluster: ClusterSize<'_>,
    array: impl Fn(u64) -> Vec<u32>,
) -> Result<(JobSpec, Order), String> {
    let layout = request.layout(cluster.gpus).map_err(|error| error.to_string())?;
    let kind = layout.gpu_kind.as_ref().map(|kind| gpu_tag(kind));
    let asked = Asked {
        partition: request.queue.as_deref(),
        nodes: layout.nodes,
        limit_s: request.time_limit.map(|limit| limit.seconds()),
    };
    let within = partition::admit(asked, cluster.partitions, cluster.tags)?;
    if request.command.is_empty() && request.script.is_none() {
        return Err("a job needs a script or a command".into());
    }
    let grace_s = request.grace().map_or(GRACE_S, |grace| u64::from(grace.seconds()));
    let room_s = match (request.grace(), &request.checkpoint) {
        (None, Some(saves)) => saves.interval().as_secs().clamp(GRACE_S, GRACE_S_MAX),
        (Some(_), _) | (None, None) => grace_s,
    };
    let indexes = request.array.as_ref().map(ff2_submit::Array::expand).unwrap_or_default();
    let spec = JobSpec {
        name: name(&request),
        user: submitter.name.clone(),
        group: request.group.clone().unwrap_or_else(|| submitter.name.clone()),
        priority: priority(request.priority),
        tasks: layout.nodes,
        task: resources(&request, &layout, cluster),
        exclusive: request.exclusive == Some(true),
        limit_ms: within.limit_s.map(|seconds| seconds * 1_000),
        grace_ms: grace_s * 1_000,
        room_ms: room_s * 1_000,
        min_run_ms: 0,
        preemptible: request.requeue != Some(false),
        restarts: if request.requeue == Some(true) { limits::RESTARTS } else { 0 },
        after: after(&request, array)?,
        many: many(&request, indexes.len()),
        inputs: request.data.clone(),
        needs: request.tags.iter().cloned().chain(kind).chain(within.tag).collect(),
        checkpoint: request.checkpoint.map(checkpoint),
        ..JobSpec::default()
    };
    let order = Order {
        ranks: layout.ranks,
        ranks_per_task: layout.ranks_per_node,
        grace_s: room_s,
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

/// Of each task; of one that has its node alone, what the node must have at least.
fn resources(request: &JobRequest, layout: &Layout, cluster: ClusterSize<'_>) -> Resources {
    // A task without GPUs must have something that is counted.
    let least = u32::from(layout.gpus_per_node == 0);
    let memory = match request.memory_per_node {
        None => 0,
        Some(Memory::All) => cluster.memory_mib,
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

/// The tag of nodes with GPUs of a kind.
pub(crate) fn gpu_tag(kind: &str) -> String {
    format!("gpu:{}", kind.to_ascii_lowercase())
}

fn after(request: &JobRequest, array: impl Fn(u64) -> Vec<u32>) -> Result<After, String> {
    let mut after = After::default();
    let Some(dependencies) = &request.dependency else { return Ok(after) };
    after.any = dependencies.any();
    for one in dependencies.list() {
        let (job, must) = match one {
            Said::AfterOk(job) => (job, Must::Succeed),
            Said::AfterAny(job) => (job, Must::End),
            Said::AfterNotOk(job) => (job, Must::Fail),
            Said::After { job, minutes: 0 } => (job, Must::Start),
            Said::After { job, minutes } => {
                (job, Must::StartBefore { ms: u64::from(*minutes) * 60_000 })
            }
            Said::Singleton if after.any => {
                return Err("a singleton comes after all that it names: write , for ?".into());
            }
            Said::Singleton => {
                after.singleton = true;
                continue;
            }
        };
        let jobs = named(*job, array(job.job))?;
        after.of.extend(jobs.map(|job| Dependency { job, must }));
    }
    Ok(after)
}

/// The jobs that are meant: of an array all, or the one with an index.
fn named(job: JobRef, indexes: Vec<u32>) -> Result<impl Iterator<Item = JobId>, String> {
    let (from, count) = match job.index {
        None => (0, indexes.len().max(1)),
        Some(index) => {
            let at = indexes.iter().position(|other| *other == index);
            let none = || format!("job {} is no array with an index {index}", job.job);
            (at.ok_or_else(none)?, 1)
        }
    };
    Ok((from..from + count).map(move |at| JobId(job.job + at as u64)))
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
        let array = |job| if job == 40 { vec![1, 4, 7] } else { Vec::new() };
        let tags = ["big", "partition:debug", "partition:long"].map(String::from);
        let debug = PartitionConfig {
            name: "debug".into(),
            time_default_s: 600,
            nodes_max: 2,
            ..PartitionConfig::default()
        };
        let (gpus, memory_mib, partitions) = (8, 1 << 19, &[debug][..]);
        read(request, who, ClusterSize { gpus, memory_mib, tags: &tags, partitions }, array)
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
        assert_eq!(spec.after.of, [Dependency { job: JobId(5), must: Must::Succeed }]);
        let (spec, _) = of("--checkpoint=5,40G,12s").unwrap();
        let checkpoint = Checkpoint { interval_ms: 300_000, bytes: 40 << 30, step_ms: 12_000 };
        assert_eq!((spec.checkpoint, spec.grace_ms), (Some(checkpoint), 30_000));
        let room_ms = |options| of(options).unwrap().0.room_ms;
        assert_eq!((room_ms("-n 1"), room_ms("--checkpoint=1")), (30_000, 60_000));
        assert_eq!(
            (room_ms("--checkpoint=60"), room_ms("--checkpoint=5 --grace=9")),
            (300_000, 9_000)
        );
        let (spec, _) = of("-N 1 --exclusive").unwrap();
        assert_eq!((spec.exclusive, spec.task.gpus, spec.task.cpus), (true, 0, 1), "any node");
        let (spec, _) = of("-N 1 --exclusive --gpus-per-node=4 --mem=0").unwrap();
        let least = Resources { gpus: 4, cpus: 1, memory: 1 << 19 };
        assert_eq!((spec.exclusive, spec.task), (true, Resources { cpus: 0, ..least }));
    }

    #[test]
    fn jobs_come_after_others_and_after_arrays() {
        let after = |text: &str| {
            let after = of(&format!("-J a -d {text}")).unwrap().0.after;
            let of = after.of.iter().map(|on| (on.job.0, on.must));
            (of.collect::<Vec<_>>(), after.any, after.singleton)
        };
        assert_eq!(after("after:5,singleton"), (vec![(5, Must::Start)], false, true));
        let either = vec![(5, Must::Fail), (6, Must::End)];
        assert_eq!(after("afternotok:5?afterany:6"), (either, true, false));
        let array = [40, 41, 42].map(|job| (job, Must::Succeed)).to_vec();
        assert_eq!(after("afterok:40"), (array, false, false));
        assert_eq!(after("afterok:40_7"), (vec![(42, Must::Succeed)], false, false));
        assert!(of("-d afterok:40_2").unwrap_err().contains("no array with an index 2"));
        let began = vec![(5, Must::StartBefore { ms: 600_000 })];
        assert_eq!(after("after:5+10"), (began, false, false));
    }

    #[test]
    fn nodes_have_tags_that_a_job_needs() {
        let (spec, _) = of("--gres=gpu:H100:2 -C nvlink&big").unwrap();
        assert_eq!(spec.needs, ["nvlink", "big", "gpu:h100"]);
    }

    #[test]
    fn a_partition_is_a_tag_and_a_time_limit() {
        let (spec, _) = of("-p long -C big").unwrap();
        assert_eq!(
            (spec.needs, spec.limit_ms),
            (["big", "partition:long"].map(String::from).into(), None)
        );
        let (spec, _) = of("-p debug -N 2").unwrap();
        assert_eq!(spec.limit_ms, Some(600_000), "by default");
        assert!(
            of("-p debug -N 3").unwrap_err().contains("at most 2"),
            "by the nodes that it needs"
        );
    }
}
