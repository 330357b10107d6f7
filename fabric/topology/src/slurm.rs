//! Slurm's `topology.conf` and the trees of its `topology.yaml`.
//!
//! Both know compute nodes at switches, no cables: so they become a [`Description`], and come from one. Slurm's manual
//! advises to list the leaves and one switch above; that is what is written, one for each zone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Role,
    description::{Description, LeafSwitch, Port, Server},
};

/// A switch of `topology.yaml` (`tree.switches`); lists are as in `node[01-03],login`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeSwitch {
    pub switch: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub children: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub nodes: String,
}

/// A topology of `topology.yaml`, which lists such; kinds other than trees have no `tree`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub topology: String,
    #[serde(default)]
    pub cluster_default: bool,
    #[serde(default)]
    pub tree: Option<Tree>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    pub switches: Vec<TreeSwitch>,
}

/// A tree that is none, or a list that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTree {
    #[error("line {0}: expected SwitchName=... with Nodes=... or Switches=..., found {1:?}")]
    Line(usize, String),
    #[error("the list {0:?} cannot be read: expected names as in node[01-03],login")]
    List(String),
    #[error("switch {0:?} has two switches above it: list leaves and one switch above them")]
    TwoParents(String),
    #[error("switch {0:?} is above itself")]
    Circle(String),
    #[error("a list names more than {MEMBERS_MAX} parts")]
    TooMany,
}

/// More than any cluster has; a slip of the pen such as `n[0-999999999]` does not fill the memory.
const MEMBERS_MAX: usize = 1 << 20;

impl Tree {
    /// Of compute nodes; one with ports at several leaves is at the leaf of its first, for Slurm knows one place only.
    pub fn of(description: &Description) -> Self {
        let mut nodes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for node in &description.nodes {
            if let (Role::Compute { .. }, Some(port)) = (node.role, node.ports.first()) {
                nodes.entry(&port.leaf).or_default().push(&node.name);
            }
        }
        let mut zones: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut switches = Vec::new();
        for leaf in &description.leaves {
            if let Some(nodes) = nodes.get(leaf.name.as_str()) {
                zones.entry(&leaf.zone).or_default().push(&leaf.name);
                let (switch, nodes) = (leaf.name.clone(), nodes.join(","));
                switches.push(TreeSwitch { switch, nodes, ..TreeSwitch::default() });
            }
        }
        for (zone, leaves) in zones {
            let (switch, children) = (zone.to_owned(), leaves.join(","));
            switches.push(TreeSwitch { switch, children, ..TreeSwitch::default() });
        }
        Self { switches }
    }

    /// The highest switch above a leaf is its zone. Slurm does not tell what nodes have.
    pub fn describe(&self, gpus: u32, gbit_per_s: u32) -> Result<Description, BadTree> {
        let mut above: BTreeMap<String, &str> = BTreeMap::new();
        for switch in &self.switches {
            for child in expand(&switch.children)? {
                if above.insert(child.clone(), &switch.switch).is_some() {
                    return Err(BadTree::TwoParents(child));
                }
            }
        }
        let mut description = Description::default();
        for switch in self.switches.iter().filter(|switch| !switch.nodes.is_empty()) {
            let mut zone = switch.switch.as_str();
            for _ in 0..=self.switches.len() {
                zone = above.get(zone).copied().unwrap_or(zone);
            }
            if above.contains_key(zone) {
                return Err(BadTree::Circle(zone.into()));
            }
            let leaf = switch.switch.clone();
            let (name, zone) = (leaf.clone(), zone.into());
            description.leaves.push(LeafSwitch { name, zone, pod: String::new() });
            for name in expand(&switch.nodes)? {
                let ports = vec![Port { leaf: leaf.clone(), gbit_per_s }];
                description.nodes.push(Server { name, role: Role::Compute { gpus }, ports });
            }
        }
        Ok(description)
    }

    /// Reads a `topology.conf`.
    pub fn read(text: &str) -> Result<Self, BadTree> {
        let mut tree = Self::default();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let mut switch = TreeSwitch::default();
            for field in text.split_whitespace() {
                let (key, value) = field.split_once('=').unwrap_or((field, ""));
                match key.to_ascii_lowercase().as_str() {
                    "switchname" => switch.switch = value.into(),
                    "switches" => switch.children = value.into(),
                    "nodes" => switch.nodes = value.into(),
                    // Slurm reads and does not use it.
                    "linkspeed" => {}
                    _ => return Err(BadTree::Line(line, text.into())),
                }
            }
            if switch.switch.is_empty() || (switch.children.is_empty() && switch.nodes.is_empty()) {
                return Err(BadTree::Line(line, text.into()));
            }
            tree.switches.push(switch);
        }
        Ok(tree)
    }

    /// Writes a `topology.conf`.
    pub fn write(&self) -> String {
        let line = |switch: &TreeSwitch| match switch.nodes.is_empty() {
            true => format!("SwitchName={} Switches={}\n", switch.switch, switch.children),
            false => format!("SwitchName={} Nodes={}\n", switch.switch, switch.nodes),
        };
        self.switches.iter().map(line).collect()
    }
}

/// The names of a list such as `node[01-03,7],login`.
fn expand(list: &str) -> Result<Vec<String>, BadTree> {
    let bad = || BadTree::List(list.into());
    let mut names = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let end = rest.find([',', '[']).unwrap_or(rest.len());
        let (prefix, after) = rest.split_at(end);
        if let Some(inside) = after.strip_prefix('[') {
            let (ranges, after) = inside.split_once(']').ok_or_else(bad)?;
            let suffix_end = after.find(',').unwrap_or(after.len());
            let suffix = &after[..suffix_end];
            if suffix.contains(['[', ']']) {
                return Err(bad());
            }
            for range in ranges.split(',') {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let number = |text: &str| text.parse::<usize>().map_err(|_| bad());
                let (from, to) = (number(first)?, number(last)?);
                if to.saturating_sub(from) > MEMBERS_MAX - names.len().min(MEMBERS_MAX) {
                    return Err(BadTree::TooMany);
                }
                let width = first.len();
                names.extend((from..=to).map(|n| format!("{prefix}{n:0width$}{suffix}")));
            }
            rest = &after[suffix_end..];
        } else {
            if prefix.is_empty() {
                return Err(bad());
            }
            names.push(prefix.into());
            rest = after;
        }
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_expanded() {
        let names = expand("node[08-10,3],login,r[1-2]n").unwrap();
        assert_eq!(names, ["node08", "node09", "node10", "node3", "login", "r1n", "r2n"]);
        assert_eq!(expand("node[1-"), Err(BadTree::List("node[1-".into())));
        assert_eq!(expand("node[0-99999999]"), Err(BadTree::TooMany));
    }

    #[test]
    fn what_is_written_is_read() {
        let tree = crate::Tree {
            leaves: 4,
            spines: 2,
            ports: 8,
            uplinks: 4,
            storage: 3,
            ..crate::Tree::default()
        };
        let mut description = tree.build().unwrap().describe();
        let written = Tree::of(&description);
        assert_eq!(Tree::read(&written.write()).unwrap(), written);
        // Slurm knows compute nodes alone.
        description.nodes.retain(|node| node.role != Role::Storage);
        assert_eq!(written.describe(8, 200).unwrap(), description);
    }

    #[test]
    fn trees_that_are_none_are_refused() {
        let read = |text: &str| Tree::read(text).and_then(|tree| tree.describe(8, 200));
        assert_eq!(read("Nodes=a\n"), Err(BadTree::Line(1, "Nodes=a".into())));
        let twice = "SwitchName=l Nodes=a\nSwitchName=x Switches=l\nSwitchName=y Switches=l\n";
        assert_eq!(read(twice), Err(BadTree::TwoParents("l".into())));
        let circle = "SwitchName=l Nodes=a Switches=x\nSwitchName=x Switches=l\n";
        assert!(matches!(read(circle), Err(BadTree::Circle(_))));
    }
}
