//! Reads the tables that OpenSM dumps (`opensm-lfts.dump`), to compare them with ours.

use std::collections::BTreeMap;

use ff2_topology::{Network, ibnetdiscover};

use crate::{graph::Graph, tables::Tables};

/// A line that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadDump {
    /// From 1.
    pub line: usize,
    pub what: String,
}

/// Switches and hosts are known by the descriptions that [`ibnetdiscover::write`] gives them.
pub fn read_dump(network: &Network, graph: &Graph, text: &str) -> Result<Tables, BadDump> {
    let switches = network.switch_numbers();
    let endpoints: BTreeMap<String, usize> = (graph.endpoints().iter().enumerate())
        .map(|(number, endpoint)| {
            let name = &network.hosts[endpoint.host].name;
            (ibnetdiscover::nic_name(name, endpoint.nic), number)
        })
        .collect();
    let mut tables = Tables { ports: vec![vec![0; endpoints.len()]; switches.len()] };
    let mut at = None;
    for (line, text) in (1..).zip(text.lines()) {
        let bad = |what: &str| BadDump { line, what: what.into() };
        // `Unicast lids [0x0-0x5] of switch Lid 3 guid 0x20000 ('z0-leaf00'):`, then `0x0001 021 # ... : 'host'`.
        if text.starts_with("Unicast lids") {
            let name = text.split('\'').nth(1).ok_or_else(|| bad("a switch without a name"))?;
            at = Some(*switches.get(name).ok_or_else(|| bad("a switch of another network"))?);
        } else if text.starts_with("0x") {
            let at = at.ok_or_else(|| bad("an entry before any switch"))?;
            let port = text.split_whitespace().nth(1).and_then(|port| port.parse().ok());
            let port = port.ok_or_else(|| bad("expected the number of a port"))?;
            if let Some(endpoint) = text.split('\'').nth(1).and_then(|name| endpoints.get(name)) {
                tables.ports[at][*endpoint] = port;
            }
        }
    }
    Ok(tables)
}
