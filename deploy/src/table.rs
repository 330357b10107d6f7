//! `ff2ctl table list|show|create`.

use anyhow::{Context, Result};
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{
    cli::Surroundings,
    output::table,
    show::{self, Picture},
};

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// All chain tables.
    List,
    /// One chain table and its chains.
    Show { table: u32 },
    /// Places chains on all disks; new files use the newest table.
    Create {
        /// Copies of each byte.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=8))]
        replicas: u32,
        /// Number of chains [default: as many as give each disk a few targets]
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        chains: u32,
        #[arg(long, default_value = "")]
        description: String,
    },
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let admin = around.access.connect()?;
    match command {
        Command::List => {
            let picture = Picture::of(admin.status().await?);
            let all = picture.tables.values();
            let value = all.clone().map(show::chain_table).collect();
            around.output.print(&Value::Array(value), || rows(all))
        }
        Command::Show { table: id } => {
            let picture = Picture::of(admin.status().await?);
            let found = picture.tables.get(id).with_context(|| {
                format!("there is no chain table {id}; `ff2ctl table list` lists them")
            })?;
            around.output.print(&show::chain_table(found), || {
                let chains = found.chains.iter().filter_map(|chain| picture.chains.get(chain));
                let lines = chains.map(|chain| vec![chain.id.to_string(), show::members(chain)]);
                let text = rows([found]) + "\n";
                text + &table(&["CHAIN", "TARGETS, HEAD FIRST"], lines)
            })
        }
        Command::Create { replicas, chains, description } => {
            let request = pb::CreateTableRequest {
                replicas: *replicas,
                chains: *chains,
                description: description.clone(),
            };
            let reply = admin.create_table(request).await?;
            let value = json!({ "table": reply.table_id, "chains": reply.chains });
            around.output.print(&value, || {
                format!("made chain table {} with {} chains", reply.table_id, reply.chains)
            })
        }
    }
}

fn rows<'a>(tables: impl IntoIterator<Item = &'a pb::ChainTable>) -> String {
    let rows = tables.into_iter().map(|table| {
        vec![
            table.id.to_string(),
            table.version.to_string(),
            table.replicas.to_string(),
            table.chains.len().to_string(),
            table.description.clone(),
        ]
    });
    table(&["TABLE", "VERSION", "REPLICAS", "CHAINS", "DESCRIPTION"], rows)
}
