//! `ff2ctl chain list|show`.

use anyhow::{Context, Result};
use ff2_proto::{pb, routing::ChainExt};
use serde_json::Value;

use crate::{
    cli::Surroundings,
    output::table,
    show::{self, Picture},
};

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// All chains.
    List,
    /// One chain and its targets.
    Show { chain: u32 },
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let picture = Picture::of(around.access.connect()?.status().await?);
    match command {
        Command::List => {
            let all = picture.chains.values();
            let value = all.clone().map(show::chain).collect();
            around.output.print(&Value::Array(value), || rows(all))
        }
        Command::Show { chain: id } => {
            let chain = picture.chains.get(id).with_context(|| {
                format!("there is no chain {id}; `ff2ctl chain list` lists them")
            })?;
            let mut value = show::chain(chain);
            let members = chain.members.iter().filter_map(|m| picture.targets.get(&m.target));
            value["targets"] = members.map(|target| show::target(&picture, target)).collect();
            around.output.print(&value, || rows([chain]))
        }
    }
}

fn rows<'a>(chains: impl IntoIterator<Item = &'a pb::Chain>) -> String {
    let rows = chains.into_iter().map(|chain| {
        let serving = chain.serving().count();
        vec![
            chain.id.to_string(),
            chain.version.to_string(),
            format!("{serving} of {}", chain.members.len()),
            show::members(chain),
        ]
    });
    table(&["CHAIN", "VERSION", "SERVING", "TARGETS, HEAD FIRST"], rows)
}
