//! `ff2ctl table plan`: what `table create` would make of nodes that need not be there yet.

use anyhow::{Result, ensure};
use clap::Args;
use ff2_flows::model;
use ff2_meta_core::cluster::{Leaves, PlaceableDisk, evenness, place};
use ff2_proto::{NodeId, pb};
use serde_json::{Value, json};

use crate::output::Output;

#[derive(Clone, Debug, Args)]
pub(crate) struct PlanArgs {
    #[arg(long)]
    nodes: u32,
    /// Of each node.
    #[arg(long)]
    disks: u32,
    #[arg(long, default_value_t = 3)]
    replicas: u32,
    /// Of each disk.
    #[arg(long, default_value_t = 6)]
    targets: u32,
    /// Leaf switches over which the nodes are dealt out in turn; 0: not known.
    #[arg(long, default_value_t = 0)]
    leaves: u32,
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

pub(crate) fn run(output: Output, args: &PlanArgs) -> Result<()> {
    let (value, text) = plan(args)?;
    output.print(&value, || text)
}

/// Refuses numbers of which no plan can be made.
fn plan(args: &PlanArgs) -> Result<(Value, String)> {
    let PlanArgs { nodes, disks, replicas, targets, .. } = *args;
    ensure!(args.network > 0.0 && args.budget > 0.0, "--network and --budget are above 0");
    ensure!((1..=64).contains(&disks), "--disks is from 1 to 64");
    let chains =
        u64::from(nodes) * u64::from(disks) * u64::from(targets) / u64::from(replicas.max(1));
    let chains = u32::try_from(chains)?;
    let uuid = |node: u32, disk: u32| [node.to_be_bytes(), disk.to_be_bytes()].concat();
    let disk = |node, disk| PlaceableDisk {
        node: NodeId(node),
        uuid: uuid(node, disk),
        targets: 0,
        coming: 0,
    };
    let all: Vec<PlaceableDisk> =
        (1..=nodes).flat_map(|node| (0..disks).map(move |at| disk(node, at))).collect();
    let leaf = |node: u32| Some((NodeId(node), node.checked_rem(args.leaves)?.to_string()));
    let leaves: Leaves = (1..=nodes).filter_map(leaf).collect();
    let placed = place(&all, &leaves, replicas, chains)?;
    let even = evenness(&all, &leaves, &placed);
    let read = f64::from(nodes) * args.network * model::READ_EFFICIENCY;
    // The node's data comes back over the wire of whoever takes its place, from peers each at its budget: the one
    // that shares the most chains is the last. A chain's data is read from one of its other replicas.
    let lost = f64::from(disks) * args.used * 1e3;
    let chains_of_node = f64::from(chains) * f64::from(replicas) / f64::from(nodes);
    let others = f64::from(replicas.saturating_sub(1).max(1));
    let of_worst_peer = lost * f64::from(even.worst_pair) / chains_of_node / others;
    let into_node = lost / (args.network * model::READ_EFFICIENCY);
    let seconds = into_node.max(of_worst_peer / args.budget);
    let mut text = format!(
        "{chains} chains of {replicas} over {nodes} nodes\nread {:.2} TB/s\na failed node ({:.0} TB) is back after \
         {:.1} h\ntwo nodes share at most {} chains, at least {}; equal would be {:.2}\n",
        read / 1e3,
        lost / 1e3,
        seconds / 3600.0,
        even.worst_pair,
        even.least_pair,
        even.ideal_pair,
    );
    if args.leaves > 0 {
        text += &format!("{} chains have two members at the same leaf\n", even.chains_at_one_leaf);
    }
    let members = |chain: &pb::PlacedChain| {
        chain.targets.iter().map(|target| target.node).collect::<Vec<_>>()
    };
    let value = json!({
        "chains": placed.iter().map(members).collect::<Vec<_>>(), "read_gbyte_per_s": read, "recovery_s": seconds,
        "worst_pair": even.worst_pair, "least_pair": even.least_pair, "ideal_pair": even.ideal_pair,
        "chains_at_one_leaf": even.chains_at_one_leaf,
    });
    Ok((value, text))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Table {
        #[command(flatten)]
        plan: PlanArgs,
    }

    fn of(line: &str) -> Result<(Value, String)> {
        let words = std::iter::once("table").chain(line.split_whitespace());
        plan(&Table::try_parse_from(words).unwrap().plan)
    }

    #[test]
    fn the_storage_of_fire_flyer_is_planned() {
        let (value, text) = of("--nodes 180 --disks 16 --leaves 39").unwrap();
        assert_eq!(value["read_gbyte_per_s"].as_f64().unwrap().round(), 8_000.0);
        assert_eq!(value["chains"].as_array().unwrap().len(), 5_760);
        assert_eq!(value["chains_at_one_leaf"], 0);
        let (worst, ideal) =
            (value["worst_pair"].as_f64().unwrap(), value["ideal_pair"].as_f64().unwrap());
        assert!(worst <= ideal.ceil() + 1.0, "{text}");
        // 160 TB, of which the busiest of the others sends what it shares, at 2 GB/s.
        let seconds = 160e3 * worst / 96.0 / 2.0 / 2.0;
        assert_eq!(value["recovery_s"].as_f64().unwrap(), seconds.max(160e3 / (50.0 * 8.0 / 9.0)));
        assert!(text.contains("two nodes share at most"), "{text}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let why = |line| of(line).unwrap_err().to_string();
        assert!(why("--nodes 2 --disks 6").contains("3 replicas need 3 storage nodes"));
        assert!(why("--nodes 9 --disks 0").contains("--disks is from 1 to 64"));
        assert!(why("--nodes 9 --disks 1 --budget 0").contains("are above 0"));
        assert!(of("--nodes 3 --disks 1").is_ok());
    }
}
