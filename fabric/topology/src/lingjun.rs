//! The topology file of Alibaba's Lingjun data set of 2023: a line for each host with its switches of three layers.

use std::collections::BTreeMap;

use crate::description::{Description, LeafSwitch, Port, Role, Server};

const HEADER: &str = "ip,DSW,PSW,ASW";

/// A line that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    pub what: String,
}

/// Each DSW is a zone, each PSW under it a pod, each ASW under that a leaf: their names are used again elsewhere.
/// What hosts have at their ports the file does not tell.
pub fn describe(text: &str, gpus: u32, gbit_per_s: u32) -> Result<Description, BadLine> {
    let mut lines = (1..).zip(text.lines().map(str::trim_end));
    let bad = |line, what: String| Err(BadLine { line, what });
    match lines.next() {
        Some((_, HEADER)) => {}
        other => {
            let found = other.map_or("nothing", |(_, found)| found);
            return bad(1, format!("expected the header {HEADER:?}, found {found:?}"));
        }
    }
    let mut leaves: BTreeMap<String, LeafSwitch> = BTreeMap::new();
    let mut nodes = Vec::new();
    for (line, text) in lines.filter(|(_, text)| !text.is_empty()) {
        let fields: Vec<&str> = text.split(',').collect();
        let [host, zone, pod, switch] = fields[..] else {
            return bad(line, format!("expected 4 fields ({HEADER}), found {}", fields.len()));
        };
        if fields.iter().any(|field| field.is_empty()) {
            return bad(line, "a field is empty".into());
        }
        let (pod, name) = (format!("{zone}/{pod}"), format!("{zone}/{pod}/{switch}"));
        let leaf = LeafSwitch { name: name.clone(), zone: zone.into(), pod };
        leaves.entry(name.clone()).or_insert(leaf);
        let ports = vec![Port { leaf: name, gbit_per_s }];
        nodes.push(Server { name: host.into(), role: Role::Compute { gpus }, ports });
    }
    Ok(Description { leaves: leaves.into_values().collect(), nodes })
}

/// The file of a description. A host with several ports has the leaf of its first.
pub fn write(description: &Description) -> String {
    let leaves: BTreeMap<&str, &LeafSwitch> =
        description.leaves.iter().map(|leaf| (leaf.name.as_str(), leaf)).collect();
    let mut out = format!("{HEADER}\n");
    for node in &description.nodes {
        let leaf = node.ports.first().and_then(|port| leaves.get(port.leaf.as_str()));
        if let Some(leaf) = leaf {
            let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
            let pod = if leaf.pod.is_empty() { &leaf.zone } else { &leaf.pod };
            let fields = [node.name.clone(), leaf.zone.clone(), last(pod), last(&leaf.name)];
            out += &fields.join(",");
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeId, Proximity, Topology};

    #[test]
    fn hosts_are_at_their_switches() {
        let text =
            "ip,DSW,PSW,ASW\na,G6,P10,S14\nb,G6,P10,S14\nc,G6,P10,S6\nd,G6,P8,S14\ne,G7,P8,S14\n";
        let topology = Topology::new(&describe(text, 8, 400).unwrap()).unwrap();
        let near: Vec<_> =
            (0..5).map(|other| topology.proximity(NodeId(0), NodeId(other))).collect();
        use Proximity::{Cluster, Leaf, Node, Pod, Zone};
        assert_eq!(near, [Node, Leaf, Pod, Zone, Cluster]);
    }

    #[test]
    fn what_is_written_is_read() {
        let text = "ip,DSW,PSW,ASW\na,G6,P10,S14\nb,G6,P10,S6\nc,G7,P8,S14\n";
        let description = describe(text, 8, 400).unwrap();
        assert_eq!(write(&description), text);
        assert_eq!(describe(&write(&description), 8, 400).unwrap(), description);
    }

    #[test]
    fn a_bad_line_is_named() {
        let told = |text| describe(text, 8, 400).unwrap_err().to_string();
        assert!(told("").contains("line 1: expected the header"));
        assert_eq!(
            told("ip,DSW,PSW,ASW\na,G6,P10\n"),
            "line 2: expected 4 fields (ip,DSW,PSW,ASW), found 3"
        );
        assert_eq!(told("ip,DSW,PSW,ASW\n\na,,P10,S1\n"), "line 3: a field is empty");
    }
}
