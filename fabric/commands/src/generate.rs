//! `fabric generate`.

use anyhow::Result;
use clap::Args;
use ff2_topology::Tree;

use crate::Answer;

#[derive(Clone, Debug, Args)]
pub struct GenerateArgs {
    #[arg(long, default_value_t = 2)]
    zones: u32,
    /// Networks beside each other; a host has a port in each.
    #[arg(long, default_value_t = 1)]
    planes: u32,
    /// Leaf switches of each zone.
    #[arg(long, default_value_t = 40)]
    leaf: u32,
    /// Spine switches of each zone.
    #[arg(long, default_value_t = 20)]
    spine: u32,
    /// Ports of a switch.
    #[arg(long, default_value_t = 40)]
    ports: u32,
    /// Of these, how many of a leaf lead to spines; half by default.
    #[arg(long)]
    uplinks: Option<u32>,
    /// Switches that join the zones.
    #[arg(long, default_value_t = 2)]
    between: u32,
    /// Compute nodes of each zone; all free ports by default.
    #[arg(long)]
    compute: Option<u32>,
    /// Storage nodes of the cluster, each with a port in every zone.
    #[arg(long, default_value_t = 180)]
    storage: u32,
    #[arg(long, default_value_t = 8)]
    gpus: u32,
    /// Hosts at each leaf of a ragged tree, as in 11,1,4.
    #[arg(long, value_delimiter = ',')]
    ragged: Vec<u32>,
    /// Of each link.
    #[arg(long, default_value_t = 200)]
    gbit_per_s: u32,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<Answer> {
    let tree = Tree {
        zones: args.zones,
        planes: args.planes,
        leaves: args.leaf,
        spines: args.spine,
        ports: args.ports,
        uplinks: args.uplinks.unwrap_or(args.ports / 2),
        between: args.between,
        compute: args.compute,
        gpus: args.gpus,
        storage: args.storage,
        ragged: args.ragged.clone(),
        gbit_per_s: args.gbit_per_s,
    };
    let network = tree.build()?;
    let mut text = format!(
        "{} switches, {} hosts, {} links\n",
        network.switches.len(),
        network.hosts.len(),
        network.links.len()
    );
    for (zone, ports) in network.host_ports() {
        text += &format!("zone {zone}: {ports} host ports\n");
    }
    text += "--json prints the network for the other commands\n";
    Ok(Answer { value: serde_json::to_value(&network)?, text })
}
