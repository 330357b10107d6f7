//! `fabric route`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use ff2_routing::{Graph, Policy, Tables, credit_loop};
use serde_json::json;

use crate::{
    Answer,
    file::{self, Broken, Source},
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Routing {
    DModK,
    /// As d-mod-k, with storage dealt out over all spines.
    #[default]
    Balanced,
}

impl Routing {
    pub(crate) fn policy(self) -> Policy {
        match self {
            Self::DModK => Policy::DModK,
            Self::Balanced => Policy::Balanced,
        }
    }
}

#[derive(Clone, Debug, Args)]
pub struct RouteArgs {
    #[command(flatten)]
    source: Source,
    #[arg(long, value_enum, default_value_t)]
    routing: Routing,
    #[command(flatten)]
    broken: Broken,
}

pub(crate) fn run(args: &RouteArgs) -> Result<Answer> {
    let network = args.source.read()?;
    let graph = Graph::new(&network)?;
    let tables = Tables::build(&graph, args.routing.policy());
    let failed = args.broken.links(&network)?;
    let repaired = tables.repair(&graph, &failed);
    let is_free = credit_loop(&graph, &repaired).is_none();
    let changes = tables.changes(&repaired);
    let name = |endpoint: usize| {
        let endpoint = graph.endpoints()[endpoint];
        format!("{}[{}]", network.hosts[endpoint.host].name, endpoint.nic)
    };
    let shown: Vec<_> = changes
        .iter()
        .map(|change| {
            let switch = network.switches[change.switch].name.as_str();
            let to = name(change.endpoint);
            json!({ "switch": switch, "destination": to, "from": change.from, "to": change.to })
        })
        .collect();
    // From each leaf: who hangs at one leaf shares its ways.
    let mut leaves: Vec<usize> = (0..graph.endpoints().len()).collect();
    leaves.dedup_by_key(|endpoint| graph.endpoints()[*endpoint].switch);
    let everyone = 0..graph.endpoints().len();
    let ways = leaves.iter().flat_map(|from| everyone.clone().map(move |to| (*from, to)));
    let lost = ways.filter(|(from, to)| repaired.path(&graph, *from, *to).is_err()).count();
    let entries = network.switches.len() * graph.endpoints().len();
    let mut text = format!(
        "{entries} entries, {} changed by the failures; {lost} ways lost; {}\n",
        changes.len(),
        if is_free { "no credit loop" } else { "CREDIT LOOP" }
    );
    if !changes.is_empty() {
        let rows = changes.iter().take(20).map(|change| {
            let switch = network.switches[change.switch].name.clone();
            vec![switch, name(change.endpoint), change.from.to_string(), change.to.to_string()]
        });
        text += &file::table(&["SWITCH", "DESTINATION", "FROM PORT", "TO PORT"], rows);
        if changes.len() > 20 {
            text += "\n... --json has all";
        }
        text.push('\n');
    }
    let value = json!({
        "entries": entries, "changes": shown, "ways_lost": lost, "credit_loop": !is_free,
    });
    Ok(Answer { value, text })
}
