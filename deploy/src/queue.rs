//! `ff2ctl queue`: what runs and waits, by priority.

use std::collections::BTreeMap;

use anyhow::Result;
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{cli::Surroundings, job::gpus_of, output::table};

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Jobs and GPUs of each priority: what runs, what waits, and how much may run.
    List,
    /// Limit how many GPUs the jobs of a priority may have at once.
    Set {
        priority: ff2_submit::Priority,
        /// So many, or `none`.
        #[arg(long, value_name = "N|none")]
        gpus: String,
    },
    /// What `-p NAME` asks for: partitions, their nodes, and what holds for jobs in them.
    Partitions,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    running: u64,
    running_gpus: u64,
    waiting: u64,
    waiting_gpus: u64,
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let sched = around.access.connect_sched()?;
    if matches!(command, Command::Partitions) {
        let listed = sched.list_job_quotas(pb::ListJobQuotasRequest {}).await?;
        return partitions(around, &listed.partitions);
    }
    if let Command::Set { priority, gpus } = command {
        let remove = gpus == "none";
        let gpus = if remove { 0 } else { gpus.parse()? };
        let quota = pb::JobQuota { priority: priority.to_string(), gpus, ..Default::default() };
        sched.set_job_quota(pb::SetJobQuotaRequest { quota: Some(quota), remove }).await?;
    }
    let jobs =
        sched.list_jobs(pb::ListJobsRequest { most: u32::MAX, ..Default::default() }).await?;
    let quotas = sched.list_job_quotas(pb::ListJobQuotasRequest {}).await?.quotas;
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for job in &jobs.jobs {
        let sum = sums.entry(job.priority.clone()).or_default();
        let gpus = gpus_of(job);
        match job.state.as_str() {
            "running" | "stopping" => {
                (sum.running, sum.running_gpus) = (sum.running + 1, sum.running_gpus + gpus)
            }
            _ => (sum.waiting, sum.waiting_gpus) = (sum.waiting + 1, sum.waiting_gpus + gpus),
        }
    }
    let limit = |priority: &str| {
        let is_its = |quota: &&pb::JobQuota| {
            quota.priority == priority && quota.user.is_empty() && quota.group.is_empty()
        };
        quotas.iter().find(is_its).map(|quota| quota.gpus)
    };
    for quota in quotas.iter().filter(|quota| !quota.priority.is_empty()) {
        sums.entry(quota.priority.clone()).or_default();
    }
    let value = sums.iter().map(|(priority, sum)| {
        json!({
            "priority": priority, "running": sum.running, "running_gpus": sum.running_gpus,
            "waiting": sum.waiting, "waiting_gpus": sum.waiting_gpus, "limit_gpus": limit(priority),
        })
    });
    around.output.print(&Value::Array(value.collect()), || {
        if sums.is_empty() {
            return "no jobs".into();
        }
        let rows = sums.iter().map(|(priority, sum)| {
            vec![
                priority.clone(),
                format!("{} ({} GPUs)", sum.running, sum.running_gpus),
                format!("{} ({} GPUs)", sum.waiting, sum.waiting_gpus),
                limit(priority).map_or_else(|| "-".to_owned(), |limit| limit.to_string()),
            ]
        });
        table(&["PRIORITY", "RUNNING", "WAITING", "LIMIT"], rows)
    })
}

fn partitions(around: &Surroundings, listed: &[pb::JobPartition]) -> Result<()> {
    let some = |number: u64| (number > 0).then_some(number);
    let value = listed.iter().map(|of| {
        json!({
            "name": of.name, "leaves": of.leaves, "nodes": of.nodes, "time_default_s": some(of.time_default_s),
            "time_max_s": some(of.time_max_s), "nodes_max": some(of.nodes_max.into()),
        })
    });
    around.output.print(&Value::Array(value.collect()), || {
        if listed.is_empty() {
            return "no partitions".into();
        }
        let minutes =
            |seconds| some(seconds).map_or("-".into(), |of| format!("{}:{:02}", of / 60, of % 60));
        let rows = listed.iter().map(|of| {
            vec![
                of.name.clone(),
                of.nodes.to_string(),
                if of.leaves.is_empty() { "-".into() } else { of.leaves.join(",") },
                minutes(of.time_default_s),
                minutes(of.time_max_s),
                some(of.nodes_max.into()).map_or("-".into(), |most| most.to_string()),
            ]
        });
        table(&["PARTITION", "NODES", "LEAVES", "TIME", "LONGEST", "MOST NODES"], rows)
    })
}
