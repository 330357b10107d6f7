//! `ff2ctl table list|show|create|plan|extend|replicas`.

mod plan;

use anyhow::{Context, Result};
use ff2_proto::{pb, routing::ChainExt};
use serde_json::{Value, json};

use crate::{
    cli::Surroundings,
    connect::Admin,
    moves::{self, Left},
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
    /// Plan chains for nodes that need not be there yet, and predict what they give.
    Plan(plan::PlanArgs),
    /// Adds chains to a table after disks or nodes were added; new files use them too.
    Extend {
        table: u32,
        /// Number of chains [default: what a new table would have now, less what this one has]
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        chains: u32,
    },
    /// Changes how many copies there are of each byte, of files that are there and of new ones.
    ///
    /// More: each chain gets a member that is copied from the others. Fewer: each chain gives one up, once all the
    /// others serve; one that is away goes first.
    Replicas {
        table: u32,
        #[arg(value_parser = clap::value_parser!(u32).range(1..=8))]
        replicas: u32,
        /// Also to a single copy, which the loss of a disk loses.
        #[arg(long)]
        force: bool,
        /// Return when all chains have so many; fails if one has no place for another.
        #[arg(long)]
        wait: bool,
    },
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    if let Command::Plan(args) = command {
        return plan::run(around.output, args);
    }
    let admin = around.access.connect()?;
    match command {
        Command::Plan(_) => Ok(()),
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
            let value = json!({
                "table": reply.table_id, "chains": reply.chains, "worst_pair": reply.worst_pair,
                "least_pair": reply.least_pair, "ideal_pair": reply.ideal_pair,
                "chains_at_one_leaf": reply.chains_at_one_leaf,
            });
            around.output.print(&value, || made(&reply))
        }
        Command::Replicas { table, replicas, force, wait } => {
            let request =
                pb::SetReplicasRequest { table_id: *table, replicas: *replicas, force: *force };
            let reply = admin.set_replicas(request).await?;
            if *wait {
                follow(around, &admin, *table, *replicas).await?;
            }
            let value = json!({
                "table": table, "replicas": replicas, "before": reply.before, "chains": reply.chains,
            });
            around.output.print(&value, || {
                let (before, chains) = (reply.before, reply.chains);
                match wait {
                    true => format!("the {chains} chains of table {table} have {replicas} replicas"),
                    false => format!(
                        "the {chains} chains of table {table} get {replicas} replicas, from {before}; \
                         `ff2ctl status` tells how far they are"
                    ),
                }
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

fn made(reply: &pb::CreateTableReply) -> String {
    let mut text = format!(
        "made chain table {} with {} chains; two nodes share at most {} of them, at least {}; equal would be {:.2}",
        reply.table_id, reply.chains, reply.worst_pair, reply.least_pair, reply.ideal_pair
    );
    if reply.chains_at_one_leaf > 0 {
        text += &format!("; {} have two members at the same leaf switch", reply.chains_at_one_leaf);
    }
    text
}

async fn follow(around: &Surroundings, admin: &Admin, table: u32, replicas: u32) -> Result<()> {
    let chains = |picture: &Picture| {
        let chains = picture.tables.get(&table).map_or_else(Vec::new, |table| table.chains.clone());
        let other = |chain: &&pb::Chain| {
            let wanted = replicas as usize;
            chain.members.len() != wanted || chain.serving().count() != wanted
        };
        let ids = chains.into_iter().filter_map(|id| picture.chains.get(&id)).filter(other);
        ids.map(|chain| chain.id).collect::<Vec<_>>()
    };
    let left = |picture: &Picture| Left { targets: chains(picture).len(), bytes: 0 };
    let picture = Picture::of(admin.status().await?);
    let of_table = picture.tables.get(&table).map_or_else(Vec::new, |table| table.chains.clone());
    let is_ours = |stuck: &pb::StuckMove| stuck.target == 0 && of_table.contains(&stuck.chain);
    moves::follow(around, admin, &format!("table {table}"), left, is_ours).await
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
