//! `ff2ctl table list|show|create|extend`.

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
    /// Adds chains to a table after disks or nodes were added; new files use them too.
    Extend {
        table: u32,
        /// Number of chains [default: what a new table would have now, less what this one has]
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        chains: u32,
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
        Command::Extend { table, chains } => {
            let request = pb::ExtendTableRequest { table_id: *table, chains: *chains };
            let reply = admin.extend_table(request).await?;
            let value = json!({ "table": table, "version": reply.version, "chains": reply.chains });
            around.output.print(&value, || {
                format!(
                    "chain table {table} is at version {}, with {} chains more: new files use them, \
                     files that are there stay where they are",
                    reply.version, reply.chains
                )
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
