//! Nodes that run jobs, as the scheduler knows them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ff2_proto::pb;
use ff2_validate::Report;
use serde_json::{Value, json};

use super::Which;
use crate::{cli::Surroundings, output::table};

/// None where no scheduler is known.
pub(super) async fn nodes(around: &Surroundings) -> Result<Vec<pb::ComputeNode>> {
    if !around.access.knows_sched() {
        return Ok(Vec::new());
    }
    let sched = around.access.connect_sched()?;
    Ok(sched.list_compute_nodes(pb::ListComputeNodesRequest { runs: false }).await?.nodes)
}

pub(super) async fn set(around: &Surroundings, node: &Which, state: &str, why: &str) -> Result<()> {
    let (name, leaf) = match node {
        Which::Compute(name) => (name.clone(), String::new()),
        Which::Leaf(leaf) => (String::new(), leaf.clone()),
        Which::Joined(number) => bail!(
            "{number} is a node of the file system: `ff2ctl node drain` and `undrain` are for those; compute nodes \
             have names (`ff2ctl node list`)"
        ),
    };
    let what = if leaf.is_empty() { name.clone() } else { format!("leaf {leaf}") };
    let request = pb::SetComputeNodeRequest { name, leaf, state: state.into(), why: why.into() };
    around.access.connect_sched()?.set_compute_node(request).await?;
    let value = json!({ "node": what, "state": state, "why": why });
    around.output.print(&value, || match state {
        "up" => format!("{what} runs jobs again"),
        "draining" => format!("{what} is drained: its jobs are suspended and go on elsewhere"),
        _ => format!("nothing new is placed on {what}: what runs there goes on"),
    })
}

pub(super) async fn tag(
    around: &Surroundings,
    name: &str,
    add: &[String],
    remove: &[String],
) -> Result<()> {
    let (add, remove) = (add.to_vec(), remove.to_vec());
    let request = pb::TagComputeNodeRequest { name: name.to_owned(), add, remove };
    let has = around.access.connect_sched()?.tag_compute_node(request).await?.tags;
    let value = json!({ "node": name, "tags": has });
    around.output.print(&value, || match has.is_empty() {
        true => format!("{name} has no tags"),
        false => format!("{name} has the tags {}", has.join(", ")),
    })
}

/// It waits for jobs that run there, which may take days.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);

pub(super) async fn validate(around: &Surroundings, name: &str, no_wait: bool) -> Result<()> {
    let sched = around.access.connect_sched()?;
    let request = pb::ValidateComputeNodeRequest { name: name.to_owned() };
    let number = sched.validate_compute_node(request).await?.number;
    if no_wait {
        let value = json!({ "node": name, "asked": number });
        return around
            .output
            .print(&value, || format!("{name} looks at itself when nothing runs there"));
    }
    let progress = around.output.progress();
    let since = Instant::now();
    let found = loop {
        let reply = sched.list_compute_nodes(pb::ListComputeNodesRequest { runs: false }).await?;
        let node = reply.nodes.into_iter().find(|node| node.name == name);
        let node = node.with_context(|| format!("{name} is gone"))?;
        if node.validated >= number {
            break node.validation;
        }
        let what = match node.jobs.is_empty() {
            true => "it looks at itself".to_owned(),
            false => format!("waiting for {} jobs there", node.jobs.len()),
        };
        progress.now(what);
        ensure!(
            since.elapsed() < PATIENCE,
            "{name} has not done so in {} s; it will when nothing runs there (`ff2ctl node list`)",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(POLL).await;
    };
    progress.finish();
    let report: Report = serde_json::from_str(&found).context("read the report")?;
    let value = serde_json::to_value(&report)?;
    around.output.print(&value, || {
        let rows = report.checks.iter().map(|check| {
            let figure = check.figure.map(|figure| format!("{figure:.1} {}", check.unit));
            let limit = check.limit.map(|limit| format!("{limit:.1}"));
            vec![
                check.name.clone(),
                figure.unwrap_or_default(),
                limit.unwrap_or_default(),
                check.verdict.to_string(),
                check.why.clone(),
            ]
        });
        let table = table(&["CHECK", "FIGURE", "LIMIT", "VERDICT", "WHY"], rows);
        format!("{table}\n{name}: {}\n", report.verdict)
    })
}

pub(super) fn value(node: &pb::ComputeNode) -> Value {
    json!({
        "name": node.name, "role": "compute", "zone": node.zone, "leaf": node.leaf, "state": node.state,
        "why": node.why, "gpus": node.gpus, "gpus_used": node.gpus_used, "spare": node.spare, "jobs": node.jobs,
        "tags": node.tags, "heard_ms": node.heard_ms, "host": node.host, "confinement": node.confinement,
        "release": node.release, "cpus": node.cpus, "cpus_used": node.cpus_used,
        "memory_mib": node.memory_mib, "memory_used_mib": node.memory_used_mib,
    })
}

pub(super) fn shown(nodes: &[pb::ComputeNode]) -> String {
    let rows = nodes.iter().map(|node| {
        let jobs: Vec<String> = node.jobs.iter().map(u64::to_string).collect();
        let state = if node.spare { "spare".to_owned() } else { node.state.clone() };
        vec![
            node.name.clone(),
            format!("{}/{}", node.zone, node.leaf),
            state,
            format!("{}/{}", node.gpus_used, node.gpus),
            format!("{}/{}", node.cpus_used, node.cpus),
            format!("{}/{}", node.memory_used_mib >> 10, node.memory_mib >> 10),
            jobs.join(","),
            node.tags.join(","),
            format!("{} ms", node.heard_ms),
            node.why.clone(),
        ]
    });
    table(
        &[
            "COMPUTE",
            "ZONE/LEAF",
            "STATE",
            "GPUS",
            "CORES",
            "GiB",
            "JOBS",
            "TAGS",
            "LAST HEARD",
            "WHY",
        ],
        rows,
    )
}
