//! `ff2ctl job show|why|eta|ranks|cost`.

use anyhow::{Context, Result, anyhow, bail};
use ff2_proto::pb;
use ff2_submit::{JobRequest, from_yaml};
use serde_json::{Value, json};

use super::words;
use crate::{cli::Surroundings, output::table};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    job: u64,
    /// What was asked for, as a file that `job submit` takes.
    #[arg(long)]
    yaml: bool,
}

pub(super) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let reply = ask(around, args.job).await?;
    if args.yaml {
        request(&reply)?;
        let text = reply.request;
        return around.output.print(&json!({ "yaml": text }), || text.clone());
    }
    let job = reply.job.clone().unwrap_or_default();
    let mut value = words::job(&job);
    value["runs"] = reply.runs.iter().map(words::run).collect();
    value["folder"] = reply.folder.clone().into();
    value["data"] = reply
        .data
        .iter()
        .map(|data| json!({ "path": data.path, "cached_on": data.nodes }))
        .collect();
    value["request"] = reply.request.clone().into();
    around.output.print(&value, || shown(&job, &reply))
}

async fn ask(around: &Surroundings, job: u64) -> Result<pb::ShowJobReply> {
    around.access.connect_sched()?.show_job(pb::ShowJobRequest { job }).await
}

fn request(reply: &pb::ShowJobReply) -> Result<JobRequest> {
    if reply.request.is_empty() {
        bail!("what this job asked for is forgotten: it ended long ago");
    }
    from_yaml(&reply.request).map_err(|error| anyhow!("{error}"))
}

fn shown(job: &pb::JobInfo, reply: &pb::ShowJobReply) -> String {
    let mut rows = vec![
        ("job", format!("{} ({})", job.job, job.name)),
        ("of", format!("{}, group {}, priority {}", job.user, job.group, job.priority)),
        ("state", job.state.clone()),
    ];
    if !job.why.is_empty() {
        rows.push(("why", job.why.clone()));
    }
    let size = match job.exclusive {
        true => format!("{} whole nodes with {} GPUs in all", job.tasks, words::gpus(job)),
        false => format!("{} x {} GPUs, {} cores", job.tasks, job.gpus, job.cpus),
    };
    rows.push(("size", size));
    rows.push(("submitted", words::at(job.submitted_ms)));
    if job.starts_by_ms != 0 {
        rows.push(("starts by", words::at(job.starts_by_ms)));
    }
    if !job.nodes.is_empty() {
        rows.push(("nodes", job.nodes.join(", ")));
    }
    rows.push(("ran", format!("{} in {} attempts", words::span(job.ran_ms), job.attempt)));
    rows.push((
        "had",
        format!(
            "{} GPU-hours, cost {}, preempted {} times, moved {} times",
            words::gpu_hours(job.gpu_ms),
            words::cost(job.cost_milli),
            job.preemptions,
            job.moves
        ),
    ));
    for data in &reply.data {
        let nodes = data.nodes.len();
        let where_from =
            if nodes == 0 { "no node's cache holds it".into() } else { data.nodes.join(", ") };
        rows.push(("data", format!("{} ({where_from})", data.path)));
    }
    rows.push(("folder", reply.folder.clone()));
    let mut text: String = rows.iter().map(|(what, is)| format!("{what:<10} {is}\n")).collect();
    if !reply.runs.is_empty() {
        text.push('\n');
        let rows = reply.runs.iter().map(|run| {
            let length = match run.to_ms {
                0 => "-".to_owned(),
                to => words::span(to.saturating_sub(run.from_ms)),
            };
            vec![
                run.attempt.to_string(),
                words::at(run.from_ms),
                length,
                words::nodes(&run.nodes),
                run.end.clone(),
            ]
        });
        text += &table(&["ATTEMPT", "FROM", "RAN", "NODES", "END"], rows);
    }
    text
}

pub(super) async fn why(around: &Surroundings, job: u64) -> Result<()> {
    let of = ask(around, job).await?.job.unwrap_or_default();
    let value = json!({ "job": job, "state": of.state, "why": of.why });
    around.output.print(&value, || match of.why.is_empty() {
        true => format!("job {job}: {}", of.state),
        false => format!("job {job}: {}: {}", of.state, of.why),
    })
}

pub(super) async fn eta(around: &Surroundings, job: u64) -> Result<()> {
    let of = ask(around, job).await?.job.unwrap_or_default();
    let starts_by = (of.starts_by_ms != 0).then_some(of.starts_by_ms);
    let value = json!({ "job": job, "state": of.state, "starts_by_ms": starts_by, "why": of.why });
    around.output.print(&value, || match (of.state.as_str(), starts_by) {
        ("held" | "pending" | "claiming", Some(at)) => format!(
            "job {job} starts by {}, if all that run keep to their time limits and nobody goes before it",
            words::at(at)
        ),
        ("held" | "pending" | "claiming", None) => {
            format!("nobody knows: jobs without a time limit are in its way ({})", of.why)
        }
        (state, _) => format!("job {job}: {state}"),
    })
}

pub(super) async fn ranks(around: &Surroundings, job: u64) -> Result<()> {
    let reply = ask(around, job).await?;
    let of = reply.job.clone().unwrap_or_default();
    let run = reply.runs.first().with_context(|| format!("job {job} has not run yet"))?;
    let layout = request(&reply)?.layout(of.gpus.max(1)).ok();
    let each = layout.map_or(1, |layout| layout.ranks_per_node);
    let rows: Vec<(u32, &String)> = run
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(place, node)| (0..each).map(move |rank| (place as u32 * each + rank, node)))
        .collect();
    let value = rows.iter().map(|(rank, node)| json!({ "rank": rank, "node": node })).collect();
    around.output.print(&Value::Array(value), || {
        table(
            &["RANK", "NODE"],
            rows.iter().map(|(rank, node)| vec![rank.to_string(), (*node).clone()]),
        )
    })
}

pub(super) async fn cost(around: &Surroundings, job: Option<u64>) -> Result<()> {
    if let Some(job) = job {
        let of = ask(around, job).await?.job.unwrap_or_default();
        let value = json!({
            "job": job, "gpu_hours": of.gpu_ms as f64 / 3.6e6, "cost": of.cost_milli as f64 / 1e3,
            "priority": of.priority,
        });
        return around.output.print(&value, || {
            format!(
                "job {job} had {} GPU-hours, which cost as much as {} of normal priority",
                words::gpu_hours(of.gpu_ms),
                words::cost(of.cost_milli)
            )
        });
    }
    let sched = around.access.connect_sched()?;
    let groups = sched.list_job_groups(pb::ListJobGroupsRequest {}).await?.groups;
    let value = groups.iter().map(account).collect();
    around.output.print(&Value::Array(value), || {
        let rows = groups.iter().map(|of| {
            vec![
                of.group.clone(),
                of.user.clone(),
                words::gpu_hours(of.gpu_ms),
                words::cost(of.cost_milli),
                of.jobs_ended.to_string(),
                of.preemptions.to_string(),
            ]
        });
        table(&["GROUP", "USER", "GPU-HOURS", "COST", "JOBS ENDED", "PREEMPTIONS"], rows)
    })
}

fn account(of: &pb::JobGroup) -> Value {
    json!({
        "group": of.group, "user": of.user, "weight": of.weight, "gpu_hours": of.gpu_ms as f64 / 3.6e6,
        "cost": of.cost_milli as f64 / 1e3, "jobs_ended": of.jobs_ended, "preemptions": of.preemptions,
    })
}
