//! `fabric simulate`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use ff2_flows::{
    Class, Rates, Report, Traffic, Transfer, completion,
    hfreduce::{self, HfReduce, Stage},
    model,
    workload::{self, Dice, capacities},
};
use ff2_routing::{Graph, Tables};
use ff2_topology::{Network, svg};
use serde_json::json;

use crate::{
    Answer,
    file::{self, Broken, Source},
    route::Routing,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Each host port sends to one other, by chance.
    Permutation,
    /// Each host port sends to the one --by further on.
    Shift,
    /// Clients read chunks from storage, --window at once.
    Read,
    /// Clients write chunks through chains of --replicas.
    Write,
    /// All compute nodes write a checkpoint at once.
    Checkpoint,
    /// Allreduce on a ring.
    Ring,
    /// Allreduce on a double binary tree: the network stage of HFReduce.
    Tree,
    /// Allreduce by HFReduce: over the CPUs and on a double binary tree, each zone with its own.
    Hfreduce,
    /// Key-value caches from one half of the nodes to the other.
    Kv,
}

impl Workload {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().into())
    }
}

#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    #[command(flatten)]
    source: Source,
    /// May be given again: they then share the network.
    #[arg(long, value_enum, default_value = "permutation")]
    workload: Vec<Workload>,
    /// Shares of a full link of flows for storage, collectives and others.
    #[arg(long, value_delimiter = ',', default_values_t = [1.0, 1.0, 1.0])]
    weights: Vec<f64>,
    #[arg(long, value_enum, default_value_t)]
    routing: Routing,
    #[command(flatten)]
    broken: Broken,
    /// Compute nodes that take part, evenly over all; all by default.
    #[arg(long)]
    clients: Option<usize>,
    /// Chunks that a client has under way at once.
    #[arg(long, default_value_t = model::READ_WINDOW)]
    window: usize,
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    #[arg(long, default_value_t = 1)]
    by: usize,
    /// Of hfreduce: pairs of GPUs sum over NVLink first.
    #[arg(long)]
    nvlink: bool,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Part of the wire's speed that is payload.
    #[arg(long, default_value_t = model::READ_EFFICIENCY)]
    efficiency: f64,
    /// Bytes of each flow in GB: tells when they end.
    #[arg(long)]
    gbytes: Option<f64>,
    /// A picture of the network, coloured by use (SVG).
    #[arg(long)]
    plot: Option<PathBuf>,
}

pub(crate) fn run(args: &SimulateArgs) -> Result<Answer> {
    ensure!(
        args.efficiency > 0.0 && args.efficiency <= 1.0,
        "--efficiency is above 0 and at most 1"
    );
    ensure!(args.gbytes.is_none_or(|gbytes| gbytes > 0.0), "--gbytes is above 0");
    let network = args.source.read()?;
    let graph = Graph::new(&network)?;
    let healthy = Tables::build(&graph, args.routing.policy());
    let [storage, collective, other] = args.weights[..] else {
        bail!("--weights are three numbers")
    };
    let weights = [storage, collective, other];
    ensure!(weights.iter().all(|weight| *weight > 0.0), "--weights are above 0");
    let by_workload = transfers(args, &network, &graph, &healthy)?;
    let transfers: Vec<Transfer> = by_workload.iter().flatten().copied().collect();
    let failed = args.broken.links(&network)?;
    let tables = healthy.repair(&graph, &failed);
    let capacity = capacities(&network, args.efficiency, &failed);
    let traffic = Traffic { graph: &graph, tables: &tables, weights };
    // Who has no way left is told, and does not stop the others.
    let has_way = |t: &&Transfer| tables.path(&graph, t.from, t.to).is_ok();
    let sent: Vec<Transfer> = transfers.iter().filter(has_way).copied().collect();
    let flows = traffic.flows(&sent)?;
    let rates = Rates::new(capacity.clone(), flows.clone());
    let report = Report::new(&rates, graph.channels());
    let cut_off = transfers.len() - sent.len();
    let of_workload = |transfers: &Vec<Transfer>| transfers.iter().filter(has_way).count();
    let jobs = jobs(args, &rates, by_workload.iter().map(of_workload));
    let mut value_before = None;
    let mut text = format!(
        "{} flows, {:.2} TB/s in all; a flow has {:.2} GB/s, the slowest {:.2}; fairness {:.3}\n",
        report.flows,
        report.total / 1e3,
        report.mean,
        report.slowest,
        report.fairness
    );
    if cut_off > 0 {
        text += &format!("{cut_off} flows have no way left\n");
    }
    if let Some((channel, flows)) = report.binds_most {
        text += &format!("{} binds most: {flows} flows\n", shown(&network, channel));
    }
    if !failed.is_empty() {
        let traffic = Traffic { graph: &graph, tables: &healthy, weights };
        let whole = capacities(&network, args.efficiency, &BTreeSet::new());
        let before = Report::new(&Rates::new(whole, traffic.flows(&transfers)?), graph.channels());
        text += &format!(
            "without the failure {:.2} TB/s, the slowest flow {:.2} GB/s\n",
            before.total / 1e3,
            before.slowest
        );
        value_before = Some(
            json!({ "total_gbyte_per_s": before.total, "slowest_gbyte_per_s": before.slowest }),
        );
    }
    for job in &jobs {
        let binds = job.binds.map(|at| format!(", bound by {}", shown(&network, at)));
        let binds = binds.unwrap_or_default();
        text += &format!(
            "{}: {} flows, the slowest {:.2} GB/s{binds}\n",
            job.workload, job.flows, job.slowest
        );
    }
    let mut hfreduce = None;
    if args.workload.contains(&Workload::Hfreduce) {
        let others =
            by_workload.iter().zip(&args.workload).filter(|(_, w)| **w != Workload::Hfreduce);
        let others: Vec<Transfer> =
            others.flat_map(|(all, _)| all).filter(has_way).copied().collect();
        let zones = zones(&network, &graph, &members(args, &graph)?);
        let outcome = reduce(args, &zones).run(&traffic, &capacity, &traffic.flows(&others)?)?;
        let binds = match outcome.binds {
            Stage::RootPort => "root ports of the nodes".into(),
            Stage::Memory => "memory of the nodes".into(),
            Stage::Network(at) => at.map_or_else(String::new, |at| shown(&network, at)),
        };
        text += &format!("hfreduce: {:.2} GB/s, bound by {binds}\n", outcome.gbyte_per_s);
        hfreduce = Some(json!({
            "gbyte_per_s": outcome.gbyte_per_s, "busy_gbyte_per_s": outcome.busy_gbyte_per_s, "binds": binds,
        }));
    }
    let rows = report.links.iter().take(10).map(|link| {
        let used = format!("{:.1} %", link.part * 100.0);
        vec![shown(&network, link.channel), format!("{:.2}", link.gbyte_per_s), used]
    });
    text += &file::table(&["LINK", "GB/s", "USED"], rows);
    text.push('\n');
    let classes =
        [("storage", Class::Storage), ("collective", Class::Collective), ("other", Class::Other)];
    let mut by_class = serde_json::Map::new();
    for (name, class) in classes {
        let members = rates.flows().filter(|(_, flow)| flow.class == class);
        let each: Vec<f64> = members.map(|(number, _)| rates.rate(number)).collect();
        if !each.is_empty() {
            let total: f64 = each.iter().sum();
            let slowest = each.iter().copied().fold(f64::INFINITY, f64::min);
            text +=
                &format!("{name}: {:.2} TB/s, the slowest flow {slowest:.2} GB/s\n", total / 1e3);
            let row = json!({ "total_gbyte_per_s": total, "slowest_gbyte_per_s": slowest });
            by_class.insert(name.into(), row);
        }
    }
    let links: Vec<_> = report
        .links
        .iter()
        .map(|link| {
            let name = shown(&network, link.channel);
            json!({ "link": name, "gbyte_per_s": link.gbyte_per_s, "used": link.part })
        })
        .collect();
    let binds = report
        .binds_most
        .map(|(channel, flows)| json!({ "link": shown(&network, channel), "flows": flows }));
    let mut value = json!({
        "flows": report.flows, "cut_off": cut_off, "total_gbyte_per_s": report.total,
        "mean_gbyte_per_s": report.mean, "slowest_gbyte_per_s": report.slowest,
        "fairness": report.fairness, "binds_most": binds, "links": links,
        "classes": by_class, "healthy": value_before, "hfreduce": hfreduce,
        "workloads": jobs.iter().map(|job| json!({
            "workload": job.workload, "flows": job.flows, "slowest_gbyte_per_s": job.slowest,
            "binds": job.binds.map(|at| shown(&network, at)),
        })).collect::<Vec<_>>(),
    });
    if let Some(gbytes) = args.gbytes {
        let ends = completion::run(capacity, flows, &vec![gbytes; sent.len()]);
        let mut slowdowns: Vec<f64> = ends.iter().map(|end| end.slowdown).collect();
        slowdowns.sort_by(f64::total_cmp);
        let at = |part: usize| slowdowns.get(slowdowns.len() * part / 100).copied();
        let last = ends.iter().map(|end| end.seconds).fold(0.0, f64::max);
        value["completion"] =
            json!({ "seconds": last, "slowdown_p50": at(50), "slowdown_p99": at(99) });
        let (p50, p99) = (at(50).unwrap_or(1.0), at(99).unwrap_or(1.0));
        text += &format!("all sent after {last:.2} s; slowdown p50 {p50:.2}, p99 {p99:.2}\n");
    }
    if let Some(path) = &args.plot {
        let part = |channel: usize| match rates.capacity(channel) > 0.0 {
            true => rates.used(channel) / rates.capacity(channel),
            false => 0.0,
        };
        let links = 0..network.links.len();
        let used: Vec<f64> = links.map(|at| part(2 * at).max(part(2 * at + 1))).collect();
        file::write(path, &svg::picture(&network, Some(&used)))?;
    }
    Ok(Answer { value, text })
}

/// One workload's flows: a collective goes on as its slowest does.
struct Job {
    workload: String,
    flows: usize,
    slowest: f64,
    /// The channel that binds the slowest.
    binds: Option<usize>,
}

/// Flows are numbered in the order of the workloads, which have so many each.
fn jobs(args: &SimulateArgs, rates: &Rates, counts: impl Iterator<Item = usize>) -> Vec<Job> {
    let mut first = 0;
    let job = |(workload, flows): (&Workload, usize)| {
        let of_job = first..first + flows;
        first += flows;
        let slowest = of_job.min_by(|a, b| rates.rate(*a).total_cmp(&rates.rate(*b)));
        Job {
            workload: workload.name(),
            flows,
            slowest: slowest.map_or(0.0, |flow| rates.rate(flow)),
            binds: slowest.and_then(|flow| rates.binding(flow)),
        }
    };
    args.workload.iter().zip(counts).map(job).collect()
}

/// Compute nodes that take part, evenly over all.
fn members(args: &SimulateArgs, graph: &Graph) -> Result<Vec<usize>> {
    let all = workload::endpoints(graph, false);
    let count = args.clients.unwrap_or(all.len());
    ensure!(count <= all.len(), "--clients: the network has {} compute ports", all.len());
    Ok((0..count).map(|at| all[at * all.len() / count]).collect())
}

fn zones(network: &Network, graph: &Graph, members: &[usize]) -> Vec<Vec<usize>> {
    let mut zones: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &member in members {
        let switch = graph.endpoints()[member].switch;
        zones.entry(&network.switches[switch].zone).or_default().push(member);
    }
    zones.into_values().collect()
}

fn reduce<'a>(args: &SimulateArgs, zones: &'a [Vec<usize>]) -> HfReduce<'a> {
    let gbytes = args.gbytes.unwrap_or(hfreduce::PUBLISHED);
    HfReduce { zones, nvlink: args.nvlink, gbytes }
}

/// By workload.
fn transfers(
    args: &SimulateArgs,
    network: &Network,
    graph: &Graph,
    tables: &Tables,
) -> Result<Vec<Vec<Transfer>>> {
    let members = members(args, graph)?;
    let zones = zones(network, graph, &members);
    let traffic = Traffic { graph, tables, weights: [1.0; 3] };
    let mut dice = Dice(args.seed);
    let one = |workload: &Workload| match workload {
        Workload::Permutation => workload::permutation(&members, &mut dice),
        Workload::Shift => workload::shift(&members, args.by),
        Workload::Read => workload::storage_read(&traffic, &members, args.window, &mut dice),
        Workload::Write | Workload::Checkpoint => {
            workload::storage_write(&traffic, &members, args.window, args.replicas, &mut dice)
        }
        Workload::Ring => workload::ring(&members),
        Workload::Tree => workload::double_binary_tree(&members),
        Workload::Hfreduce => reduce(args, &zones).transfers(),
        Workload::Kv => workload::kv_transfer(&members, &mut dice),
    };
    Ok(args.workload.iter().map(one).collect())
}

fn shown(network: &Network, channel: usize) -> String {
    let link = &network.links[channel / 2];
    match channel % 2 {
        0 => format!("{} > {}", link.a, link.b),
        _ => format!("{} > {}", link.b, link.a),
    }
}
