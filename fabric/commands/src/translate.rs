//! `fabric import`, `fabric export` and `fabric check`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use ff2_topology::{Description, Topology, ibnetdiscover, lingjun, slurm, svg};
use serde_json::json;

use crate::{
    Answer,
    file::{self, Source},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Ibnetdiscover,
    SlurmConf,
    SlurmYaml,
    Lingjun,
    Dot,
    Svg,
    /// Leaves and nodes, as `sched replay --topology` reads them.
    Leaves,
}

#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    file: PathBuf,
    #[arg(long, value_enum)]
    format: Format,
    /// Of each compute node, where the file does not tell.
    #[arg(long, default_value_t = 8)]
    gpus: u32,
    /// Of each port, where the file does not tell.
    #[arg(long, default_value_t = 200)]
    gbit_per_s: u32,
}

#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    source: Source,
    #[arg(long, value_enum)]
    format: Format,
    /// Where to; standard output by default.
    #[arg(long, short)]
    output: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    source: Source,
}

/// Networks with cables come as such; where a file has none, leaves and nodes.
pub(crate) fn import(args: &ImportArgs) -> Result<Answer> {
    let said = || format!("read {}", args.file.display());
    let text = file::text(&args.file)?;
    let description = match args.format {
        Format::Json | Format::Ibnetdiscover => {
            let network = match args.format {
                Format::Ibnetdiscover => {
                    ibnetdiscover::read(&text, args.gpus).with_context(said)?
                }
                _ => file::read(&args.file)?,
            };
            let (switches, hosts) = (network.switches.len(), network.hosts.len());
            let text = format!("{switches} switches, {hosts} hosts, {} links", network.links.len());
            return Ok(Answer { value: serde_json::to_value(&network)?, text });
        }
        Format::SlurmConf => slurm::Tree::read(&text)
            .and_then(|tree| tree.describe(args.gpus, args.gbit_per_s))
            .with_context(said)?,
        Format::SlurmYaml => {
            let named: Vec<slurm::Named> = serde_saphyr::from_str(&text).with_context(said)?;
            let tree = named.into_iter().find_map(|named| named.tree);
            let tree = tree.with_context(|| format!("{} has no tree", args.file.display()))?;
            tree.describe(args.gpus, args.gbit_per_s).with_context(said)?
        }
        Format::Lingjun => {
            lingjun::describe(&text, args.gpus, args.gbit_per_s).with_context(said)?
        }
        Format::Leaves => serde_json::from_str::<Description>(&text).with_context(said)?,
        Format::Dot | Format::Svg => bail!("pictures are only written: import a format with names"),
    };
    Topology::new(&description).with_context(said)?;
    let (leaves, nodes) = (description.leaves.len(), description.nodes.len());
    let text = format!("{leaves} leaves, {nodes} nodes; no cables in this format");
    Ok(Answer { value: serde_json::to_value(&description)?, text })
}

pub(crate) fn export(args: &ExportArgs) -> Result<Answer> {
    let network = args.source.read()?;
    let tree = || slurm::Tree::of(&network.describe());
    let text = match args.format {
        Format::Json => serde_json::to_string_pretty(&network)? + "\n",
        Format::Leaves => serde_json::to_string_pretty(&network.describe())? + "\n",
        Format::Ibnetdiscover => ibnetdiscover::write(&network),
        Format::SlurmConf => tree().write(),
        Format::SlurmYaml => {
            let topology = "fabric".to_owned();
            let named = slurm::Named { topology, cluster_default: true, tree: Some(tree()) };
            serde_saphyr::to_string(&vec![named]).context("write the tree as YAML")?
        }
        Format::Lingjun => lingjun::write(&network.describe()),
        Format::Dot => svg::dot(&network),
        Format::Svg => svg::picture(&network, None),
    };
    match &args.output {
        Some(path) => {
            file::write(path, &text)?;
            let written = path.display().to_string();
            Ok(Answer { value: json!({ "written": written }), text: format!("wrote {written}\n") })
        }
        None => Ok(Answer { value: json!({ "text": text }), text }),
    }
}

/// Fails if there are faults, and names them all.
pub(crate) fn check(args: &CheckArgs) -> Result<Answer> {
    let network = args.source.read()?;
    let faults: Vec<String> = network.check().iter().map(ToString::to_string).collect();
    if !faults.is_empty() {
        bail!("{} wiring faults:\n{}", faults.len(), faults.join("\n"));
    }
    let text = format!("{} links, no fault\n", network.links.len());
    Ok(Answer { value: json!({ "faults": faults, "links": network.links.len() }), text })
}
