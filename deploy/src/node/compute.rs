//! Nodes that run jobs, as the scheduler knows them.

use anyhow::{Result, bail};
use ff2_proto::pb;
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

pub(super) fn value(node: &pb::ComputeNode) -> Value {
    json!({
        "name": node.name, "role": "compute", "zone": node.zone, "leaf": node.leaf, "state": node.state,
        "why": node.why, "gpus": node.gpus, "gpus_used": node.gpus_used, "spare": node.spare, "jobs": node.jobs,
        "heard_ms": node.heard_ms, "host": node.host, "confinement": node.confinement, "release": node.release,
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
            jobs.join(","),
            format!("{} ms", node.heard_ms),
            node.why.clone(),
        ]
    });
    table(&["COMPUTE", "ZONE/LEAF", "STATE", "GPUS", "JOBS", "LAST HEARD", "WHY"], rows)
}
