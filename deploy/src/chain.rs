//! `ff2ctl chain list|show|revive`.

use anyhow::{Context, Result};
use ff2_proto::{pb, routing::ChainExt};
use serde_json::{Value, json};

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
    /// Let a chain that serves nothing serve from a replica that lacks its last writes.
    ///
    /// For a chain whose last complete replicas are gone for good. What was written after TARGET left
    /// the chain is lost: files on it hold older bytes, or zeros, in those places. All other replicas
    /// are removed and copied anew from it. Refused while a complete replica may still return.
    Revive {
        chain: u32,
        /// The replica to serve from; its node must run.
        #[arg(long, value_name = "TARGET")]
        from: u64,
        /// Says that you know that data is lost.
        #[arg(long, required = true)]
        accept_data_loss: bool,
        /// Also if a complete replica is only away: it is removed when it returns.
        #[arg(long)]
        force: bool,
    },
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let admin = around.access.connect()?;
    if let Command::Revive { chain, from, accept_data_loss, force } = *command {
        let target = from;
        let request = pb::ReviveChainRequest { chain, target, accept_data_loss, force };
        admin.revive_chain(request).await?;
        return around.output.print(&json!({ "revived": chain, "from": from }), || {
            format!(
                "chain {chain} serves from target {from}; the other replicas are copied anew from it"
            )
        });
    }
    let picture = Picture::of(admin.status().await?);
    match command {
        Command::Revive { .. } => unreachable!("handled above"),
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
