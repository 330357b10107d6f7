//! `table plan`.

use anyhow::{Result, ensure};
use clap::Args;
use ff2_flows::{
    chains::{Plan, Wanted},
    model,
};
use serde_json::json;

use crate::Answer;

/// Plans chains for storage nodes, and predicts what they give.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    #[arg(long)]
    nodes: usize,
    /// Of each node.
    #[arg(long)]
    disks: usize,
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// Of each disk.
    #[arg(long, default_value_t = 6)]
    targets: usize,
    /// Of each node, GB/s of the wire: two ports of 200 Gbit/s by default.
    #[arg(long, default_value_t = 50.0)]
    network: f64,
    /// Data on each disk, TB.
    #[arg(long, default_value_t = 10.0)]
    used: f64,
    /// What each node gives to recovery, GB/s.
    #[arg(long, default_value_t = 2.0)]
    budget: f64,
}

/// Refuses numbers of which no plan can be made.
pub fn plan(args: &PlanArgs) -> Result<Answer> {
    ensure!(args.network > 0.0 && args.budget > 0.0, "--network and --budget are above 0");
    let chains_of_node = args.disks * args.targets;
    let wanted = Wanted { nodes: args.nodes, replicas: args.replicas, chains_of_node };
    let plan = Plan::new(wanted)?;
    let ideal = Plan::ideal_pair(wanted);
    let read = args.nodes as f64 * args.network * model::READ_EFFICIENCY;
    // The node's data comes back over the wire of whoever takes its place, from peers each at its budget: the one
    // that shares the most chains is the last. A chain's data is read from one of its other replicas.
    let lost = args.disks as f64 * args.used * 1e3;
    let others = (args.replicas - 1).max(1) as f64;
    let of_worst_peer = lost * plan.worst_pair as f64 / chains_of_node as f64 / others;
    let into_node = lost / (args.network * model::READ_EFFICIENCY);
    let seconds = into_node.max(of_worst_peer / args.budget);
    let text = format!(
        "{} chains of {} over {} nodes\nread {:.2} TB/s\na failed node ({:.0} TB) is back after {:.1} h\n\
         two nodes share at most {} chains, at least {}; equal would be {ideal:.2}\n",
        plan.chains.len(),
        args.replicas,
        args.nodes,
        read / 1e3,
        lost / 1e3,
        seconds / 3600.0,
        plan.worst_pair,
        plan.least_pair,
    );
    let value = json!({
        "chains": plan.chains, "read_gbyte_per_s": read, "recovery_s": seconds,
        "worst_pair": plan.worst_pair, "least_pair": plan.least_pair, "ideal_pair": ideal,
    });
    Ok(Answer { value, text })
}
